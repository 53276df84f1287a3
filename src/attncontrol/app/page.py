"""The page, and the server that shows it on this machine alone."""

import os
import socket
from collections.abc import Callable
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is sent

import gradio as gr
from starlette.middleware import Middleware

from attncontrol.app import edit_form, guide_form
from attncontrol.app.closed import Closed
from attncontrol.app.fields import text
from attncontrol.app.runs import Runs
from attncontrol.errors import SettingError
from attncontrol.sprites import MODELS

FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
HOST = "127.0.0.1"


def page(model: str, device: str, dtype: str) -> Any:
    """The bundled models and ``model``, which is chosen, are offered."""
    runs, models = Runs(device, dtype), list(dict.fromkeys([model, *MODELS]))
    with gr.Blocks(title="attncontrol", analytics_enabled=False) as made:
        with gr.Row(elem_classes="ac-head"):
            with gr.Column(scale=2, min_width=240):
                gr.HTML("<h1>attncontrol</h1>", elem_classes="ac-title")
            with gr.Column(scale=5, min_width=240):
                chosen = gr.Dropdown(models, value=model, label="Model")
        with gr.Tab("Guide"):
            guide_form.form(runs, chosen)
        with gr.Tab("Edit"):
            edit_form.form(runs, chosen)
    return made


def serve(
    made: Any,
    port: int | None = None,
    *,
    browser: bool = False,
    told: Callable[[str], None] | None = None,
) -> str:
    """Its address. With ``told``, which gets it, ends when the server is interrupted. Raises
    SettingError for a port that is taken."""
    if port is not None:
        _require_free(port)
    fonts, mono = FONTS
    theme = gr.themes.Default(font=list(fonts), font_mono=list(mono))
    _, address, _ = made.queue(default_concurrency_limit=1).launch(
        server_name=HOST, server_port=port, share=False, inbrowser=browser, quiet=True,
        prevent_thread_lock=True, css=text("page.css"), theme=theme, footer_links=[],
        app_kwargs={"middleware": [Middleware(Closed)]}, ssr_mode=False, pwa=False,
        mcp_server=False, enable_monitoring=False,
    )  # fmt: skip
    if told is not None:
        told(str(address))
        made.block_thread()
    return str(address)


def _require_free(port: int) -> None:
    with socket.socket() as tried:
        if tried.connect_ex((HOST, port)) == 0:
            raise SettingError(f"port {port} is taken: give another one with --port, or none")
