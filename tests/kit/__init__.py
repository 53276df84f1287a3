"""What several test modules share: tiny pipelines, their calls, and records made by hand."""
