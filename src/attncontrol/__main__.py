"""``python -m attncontrol``."""

from attncontrol.cli import app

app(prog_name="attncontrol")
