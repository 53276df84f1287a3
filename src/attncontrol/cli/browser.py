"""``attncontrol app``: the package in a browser."""

from importlib.util import find_spec
from typing import Annotated

import typer

from attncontrol.cli import options as of
from attncontrol.cli.app import app, console
from attncontrol.errors import PackageError


@app.command(name="app")
def in_browser(
    model: of.Model = "sprites",
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    port: Annotated[
        int | None,
        typer.Option(
            help="Of this machine. Default: the first free one from 7860.", min=1, max=65535
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show a page on this machine alone (127.0.0.1): guide and edit pictures, see what words attend
    to, draw boxes, copy the command or the Python of what was done."""
    if find_spec("gradio") is None:
        raise PackageError("the page is made with gradio: pip install attncontrol[app]")
    from attncontrol.app.made import pipeline
    from attncontrol.app.page import page, serve

    pipeline(model, device, dtype)  # what is wrong with it is said here
    made = page(model, device, dtype)
    serve(made, port, browser=open_it, told=lambda at: console.print(f"{at}  (Ctrl-C ends it)"))
