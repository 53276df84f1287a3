"""Arguments are what their annotations say: checked once, before anything is done with them."""
