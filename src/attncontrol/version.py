"""The version, for what lies below the front door too."""

__version__ = "0.2.0"
