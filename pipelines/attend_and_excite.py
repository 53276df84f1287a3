"""Attend-and-Excite as a custom pipeline for Stable Diffusion 1 and 2.

    pipe = DiffusionPipeline.from_pretrained(
        MODEL, custom_pipeline="pipelines/attend_and_excite.py", trust_remote_code=True
    )
    image = pipe("a cat and a frog", words=["cat", "frog"]).images[0]

Everything else is ``StableDiffusionPipeline``; the guidance itself is ``attncontrol.steer``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import StableDiffusionPipeline

from attncontrol import Descent, Where, steer
from attncontrol.losses.attend_and_excite import AttendAndExcite
from attncontrol.verbs.steer import Trace


class AttendAndExcitePipeline(StableDiffusionPipeline):  # type: ignore[misc]  # no types there
    """``trace`` holds the losses of the last call."""

    trace: Trace | None = None

    def __call__(
        self,
        prompt: str | list[str],
        *args: Any,
        words: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        where: Where | None = None,
        descent: Descent | None = None,
        **kwargs: Any,
    ) -> Any:
        """As ``StableDiffusionPipeline``, with ``words`` (None: nouns of the prompt), ``where`` and
        ``descent`` of ``steer``."""
        with steer(self, AttendAndExcite(words), where=where, descent=descent) as trace:
            result = super().__call__(prompt, *args, **kwargs)
        self.trace = trace
        return result
