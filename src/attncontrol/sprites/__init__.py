"""The sprites world: small trained models, their scenes and the scorer that knows what a picture
shows."""

from attncontrol.sprites.models import MODELS, call, path

__all__ = ["MODELS", "call", "path"]
