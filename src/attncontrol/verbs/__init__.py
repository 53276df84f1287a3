"""What the package does to a pipeline: record, steer, perturb, edit, locate."""
