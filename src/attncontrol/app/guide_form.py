"""The form that steers: plain and guided pictures side by side."""

from typing import Any

import gradio as gr

from attncontrol.app import fields, shown
from attncontrol.app.asked import Asked, Settings, guided
from attncontrol.app.parsed import parsed
from attncontrol.app.runs import Runs
from attncontrol.batch.method_names import PLAIN, names
from attncontrol.errors import AttnControlError

PROMPT = "a red cat and a blue frog"
BOXES = "cat=0,0.2,0.45,0.8\nfrog=0.55,0.2,1,0.8"


def form(runs: Runs, model: Any) -> None:
    """Adds it, with what it does, to the page that is being made."""
    begun = parsed(PROMPT)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            prompt = gr.Textbox(PROMPT, label="Prompt", elem_classes="ac-text")
            parse = gr.HTML(shown.parse(begun))
            words = gr.CheckboxGroup(
                begun.words, value=list(begun.subjects), label="Words that the loss is about",
                elem_classes="ac-chosen",
            )  # fmt: skip
            method = gr.Dropdown(
                [*names(), PLAIN], value="auto", label="Method", elem_classes="ac-method"
            )
            with gr.Group(visible=False) as layout:
                board = fields.board("Draw the box of", ["cat", "frog"], BOXES)
            step_size = gr.Textbox(
                "", label="Step size, such as 6%", placeholder="measured for the model"
            )
            numbers = fields.numbers()
            run, cancel = fields.buttons("Generate")
        with gr.Column(scale=5, min_width=440):
            output = fields.output()
    of_prompt = [parse, words, board.word, board.picture]
    prompt.change(_parsed, prompt, of_prompt, **fields.QUICK)
    method.change(_fitting, method, [layout, words], **fields.QUICK)
    values = [model, prompt, method, words, board.lines, step_size, *numbers]
    fields.sends([run.click, prompt.submit], _sent(runs), values, [*output, board.picture])
    cancel.click(runs.cancel, None, output.message, **fields.QUICK)


def _sent(runs: Runs) -> Any:
    def send(
        model: str, prompt: str, method: str, words: list[str], boxes: str, step_size: str,
        seeds: str, steps: str, guidance: str, negative: str,
        request: gr.Request, progress: Any = gr.Progress(),  # noqa: B008  # as gradio finds it
    ) -> tuple[Any, ...]:  # fmt: skip
        settings = Settings(model, runs.device, runs.dtype, seeds, steps, guidance, negative)

        def ask(_: Any) -> Asked:
            return guided(settings, prompt, method, words, boxes, step_size)

        return runs.run(ask, model, request, progress)

    return send


def _parsed(prompt: str) -> tuple[Any, ...]:
    """The parse, words to choose, and words that boxes are for."""
    try:
        found = parsed(prompt)
    except AttnControlError as error:
        return shown.wrong(error), gr.skip(), gr.skip(), gr.skip()
    nouns = [group.split("+")[-1] for group in found.subjects] or list(found.others)
    first = nouns[0] if nouns else ""
    words = gr.CheckboxGroup(found.words, value=list(found.subjects))
    return shown.parse(found), words, gr.Dropdown(nouns, value=first), gr.HTML(word=first)


def _fitting(method: str) -> tuple[Any, Any]:
    """What is shown for a method."""
    boxes = method in names("layout")
    return gr.Group(visible=boxes), gr.CheckboxGroup(visible=not boxes)
