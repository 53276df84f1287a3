"""Fields that both forms have."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import gradio as gr

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Of what is answered at once."""


def text(name: str) -> str:
    """Of a file of this folder."""
    return files("attncontrol.app").joinpath(name).read_text("utf-8")


class Numbers(NamedTuple):
    """Those of ``Settings`` that every form has."""

    seeds: Any
    steps: Any
    guidance: Any
    negative: Any


def numbers() -> Numbers:
    seeds = gr.Textbox("0-1", label="Seeds, such as 0-3 or 1,5,9", elem_classes="ac-seeds")
    with gr.Accordion("Steps, guidance, negative prompt", open=False):
        with gr.Row():
            steps = gr.Textbox(
                "", label="Steps", min_width=110, elem_classes="ac-steps",
                placeholder="of the model",
            )  # fmt: skip
            guidance = gr.Textbox(
                "", label="Guidance scale", min_width=110, placeholder="of the model"
            )
        negative = gr.Textbox("", label="Negative prompt")
    return Numbers(seeds, steps, guidance, negative)


class Board(NamedTuple):
    """A picture on which boxes are drawn, and the same boxes as lines of text."""

    word: Any
    picture: Any
    lines: Any


def board(label: str, words: list[str], value: str) -> Board:
    """``label`` says what a box is for."""
    word = gr.Dropdown(words, value=words[0], label=label, allow_custom_value=True)
    picture = gr.HTML(
        value, html_template='<div class="ac-board" aria-label="drag to draw a box"></div>',
        js_on_load=text("board.js"), word=words[0], ground="", elem_classes="ac-drawing",
    )  # fmt: skip
    lines = gr.Textbox(
        value, lines=2, elem_classes="ac-lines",
        label="Drag on the square, or write word=left,top,right,bottom (0 to 1)",
    )  # fmt: skip
    word.change(lambda each: gr.HTML(word=each), word, picture, **QUICK)
    picture.input(lambda given: given, picture, lines, **QUICK)
    lines.input(lambda given: given, lines, picture, **QUICK)
    return Board(word, picture, lines)


class Output(NamedTuple):
    """What a form shows: messages, pictures, losses, and what was done."""

    message: Any
    results: Any
    losses: Any
    command: Any
    python: Any


def output() -> Output:
    message = gr.HTML("", elem_classes="ac-message")
    results = gr.HTML(
        '<div class="ac-parse">The pictures will be here.</div>', elem_classes="ac-results"
    )
    losses = gr.LinePlot(
        None, x="step", y="loss", color="seed", title="Loss before every guided step", height=240,
        visible=False, elem_classes="ac-losses", buttons=[],
    )  # fmt: skip
    with gr.Accordion("As a command and in Python", open=False):
        command = gr.Code("", language="shell", label="Command line", lines=1, wrap_lines=True)
        python = gr.Code("", language="python", label="Python", lines=1, wrap_lines=True)
    return Output(message, results, losses, command, python)


def buttons(label: str) -> tuple[Any, Any]:
    with gr.Row():
        run = gr.Button(label, variant="primary", min_width=120, elem_classes="ac-run")
        cancel = gr.Button("Cancel", min_width=90, elem_classes="ac-cancel")
    return run, cancel


def sends(
    events: Sequence[Any], send: Callable[..., Any], values: Sequence[Any], shows: Sequence[Any]
) -> None:
    """Each event sends the values, one run of a model after the other; ``shows`` begins with the
    message that tells how far it is."""
    gr.on(events, send, values, shows, concurrency_id="model", show_progress_on=shows[0])
