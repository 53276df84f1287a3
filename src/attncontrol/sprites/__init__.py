"""The sprites world: small trained models, their scenes and the scorer that knows what a picture
shows."""

from attncontrol.sprites.models import CALL, MODELS, path

__all__ = ["CALL", "MODELS", "path"]
