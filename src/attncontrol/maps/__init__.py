"""Attention as values: of one step, of a recording, on disk, drawn."""
