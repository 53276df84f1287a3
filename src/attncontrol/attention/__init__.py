"""Where attention is computed, one call of it, and its interception. Nothing here knows of
pipelines."""
