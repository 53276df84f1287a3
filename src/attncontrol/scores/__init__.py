"""Numbers of pictures by name: of the bundled scorer, of models of transformers, or one's own."""
