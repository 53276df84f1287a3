"""The form that edits: a source and what differs from it in what is asked for."""

from typing import Any

import gradio as gr

from attncontrol.app import fields
from attncontrol.app.asked import TO, Asked, Settings, edited
from attncontrol.app.parsed import parsed
from attncontrol.app.runs import Runs
from attncontrol.batch.edit_names import AUTO, USUAL
from attncontrol.errors import AttnControlError

PROMPT, NEW = "a red cat and a frog", "a blue cat and a frog"
REGIONS = "a red cat=0,0.1,0.5,0.9\na frog=0.5,0.1,1,0.9"
KINDS = [
    ("second prompt", TO), ("remove", "remove"), ("move", "move"), ("regions", "regions")
]  # fmt: skip


def form(runs: Runs, model: Any) -> None:
    """Adds it, with what it does, to the page that is being made."""
    nouns = _nouns(PROMPT)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            prompt = gr.Textbox(PROMPT, label="Prompt of the source", elem_classes="ac-text")
            kind = gr.Radio(KINDS, value=TO, label="What changes", elem_classes="ac-kind")
            to = gr.Textbox(NEW, label="Second prompt", elem_classes="ac-to")
            method = gr.Dropdown(
                [AUTO, *USUAL], value=AUTO, allow_custom_value=True, elem_classes="ac-method",
                label="Method; with a strength p2p@0.6, several layout+blend, steered p2p+auto",
            )  # fmt: skip
            word = gr.Dropdown(
                nouns, value=nouns[-1], label="Word", allow_custom_value=True, visible=False,
                elem_classes="ac-word",
            )  # fmt: skip
            with gr.Group(visible=False) as way:
                right = gr.Slider(-0.9, 0.9, 0.3, step=0.05, label="To the right, in widths")
                down = gr.Slider(-0.9, 0.9, 0.0, step=0.05, label="Down, in heights")
            with gr.Group(visible=False) as regions:
                board = fields.board("Draw a region that shows", ["a red cat", "a frog"], REGIONS)
            numbers = fields.numbers()
            run, cancel = fields.buttons("Edit")
        with gr.Column(scale=5, min_width=440):
            output = fields.output()
    prompt.change(_words, prompt, word, **fields.QUICK)
    kind.change(_fitting, kind, [to, method, word, way, regions], **fields.QUICK)
    values = [model, prompt, kind, to, method, word, right, down, board.lines, *numbers]
    fields.sends(
        [run.click, prompt.submit, to.submit], _sent(runs), values, [*output, board.picture]
    )
    cancel.click(runs.cancel, None, output.message, **fields.QUICK)


def _sent(runs: Runs) -> Any:
    def send(
        model: str, prompt: str, kind: str, to: str, method: str, word: str, right: float,
        down: float, regions: str, seeds: str, steps: str, guidance: str,
        negative: str, request: gr.Request, progress: Any = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:  # fmt: skip
        settings = Settings(model, runs.device, runs.dtype, seeds, steps, guidance, negative)
        change = {"method": method, "word": word, "right": right, "down": down}

        def ask(pipe: Any) -> Asked:
            new = to if kind == TO else ""
            return edited(settings, pipe, prompt, kind, new, regions=regions, **change)

        return runs.run(ask, model, request, progress)

    return send


def _words(prompt: str) -> Any:
    found = _nouns(prompt)
    return gr.Dropdown(found, value=found[-1] if found else "")


def _nouns(prompt: str) -> list[str]:
    try:
        return [group.split("+")[-1] for group in parsed(prompt).subjects]
    except AttnControlError:
        return []


def _fitting(kind: str) -> tuple[Any, ...]:
    """What is shown for a kind of change."""
    to, some = kind == TO, kind in ("remove", "move")
    return (
        gr.Textbox(visible=to), gr.Dropdown(visible=to), gr.Dropdown(visible=some),
        gr.Group(visible=kind == "move"), gr.Group(visible=kind == "regions"),
    )  # fmt: skip
