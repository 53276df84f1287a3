"""Pictures of recorded attention."""
