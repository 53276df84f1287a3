"""What became of a job: a page with all its pictures, scores, and tables of them."""
