"""A self-contained page in which to look at recorded attention."""
