"""Many pictures from one file: jobs that are checked whole, made in batches, and gone on with."""
