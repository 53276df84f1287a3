"""What happens when a form is sent."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import pandas as pd

from attncontrol.app import shown, told
from attncontrol.app.asked import Asked
from attncontrol.app.fields import Output
from attncontrol.app.made import Shown, make
from attncontrol.app.made import pipeline as pipeline_of


@dataclass
class Runs:
    """``device`` and ``dtype`` of all pipelines. ``running`` are the pages whose pictures are being
    made, ``cancelled`` those of them that want no more."""

    device: str
    dtype: str
    running: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)

    def cancel(self, request: gr.Request) -> str:
        page = str(request.session_hash)
        if page not in self.running:
            return shown.note("Nothing is being made.")
        self.cancelled.add(page)
        return shown.note("It ends before the next step.")

    def run(
        self, ask: Callable[[Any], Asked], model: str, request: gr.Request, progress: Any
    ) -> tuple[Any, ...]:
        """The values of an ``Output``, and the board with the first picture; ``ask`` gets the
        pipeline. Whatever goes wrong is shown, and the pictures before stay."""
        page, began = str(request.session_hash), time.perf_counter()
        self.running.add(page)
        try:
            progress(0, desc="loading the model")
            pipe = pipeline_of(model, self.device, self.dtype)
            asked = ask(pipe)
            made = make(
                pipe, asked, lambda share, what: progress(share, desc=what),
                lambda: page in self.cancelled,
            )  # fmt: skip
        except Exception as error:  # of the form, the pipeline, or code of the user's
            return (shown.wrong(error), *[gr.skip()] * len(Output._fields))
        finally:
            self.running.discard(page)
            self.cancelled.discard(page)
        if made is None:
            message = shown.note("Cancelled. The pictures are those from before.")
            return (message, *[gr.skip()] * len(Output._fields))
        rows = shown.losses(made)
        chart = gr.LinePlot(pd.DataFrame(rows) if rows else None, visible=bool(rows))
        done = _done(asked, time.perf_counter() - began)
        return (
            shown.note(done), shown.results(asked, made), chart,
            told.command(asked), told.python(asked), gr.HTML(ground=_ground(made)),
        )  # fmt: skip


def _done(asked: Asked, seconds: float) -> str:
    done = f"{len(asked.items)} pictures in {seconds:.1f} s."
    return f"{done} {asked.note}." if asked.note else done


def _ground(made: Mapping[int, Sequence[Shown]]) -> str:
    """The address of the first plain picture, or source."""
    first = next(iter(made.values()))[0]
    return shown.address(shown.thumbnail(first.image, 512))
