"""Many pictures from scripts."""
