"""The command line: a thin shell over the library."""

from attncontrol.cli import (  # noqa: F401  # they add their commands
    again,
    batch,
    bench,
    browser,
    check,
    edit,
    export,
    generate,
    heads,
    inspect,
    look,
    maps,
    records,
    report,
    strip,
)
from attncontrol.cli.app import app

__all__ = ["app"]
