"""What methods are worth, measured on the bundled models."""
