"""The command line: a thin shell over the library."""

from attncontrol.cli import bench, generate, heads, inspect, look, records
from attncontrol.cli.app import app

__all__ = ["app"]
