"""What to compute from attention: one file per question."""
