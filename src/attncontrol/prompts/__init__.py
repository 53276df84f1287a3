"""Words of a prompt and the positions of the text sequence. Nothing here knows of models."""
