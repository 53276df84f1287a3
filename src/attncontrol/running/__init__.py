"""The only code that touches a live pipeline: which run, which step, which rows, and what is
refused."""
