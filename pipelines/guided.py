"""Test-time guidance by any loss as a custom pipeline for Stable Diffusion 1 and 2.

    pipe = DiffusionPipeline.from_pretrained(
        MODEL, custom_pipeline="pipelines/guided.py", trust_remote_code=True)
    image = pipe("a red cat and a blue frog").images[0]
    image = pipe("a cat and a frog", objective="placement",
                 boxes={"cat": (0.0, 0.2, 0.45, 0.8), "frog": (0.55, 0.2, 1.0, 0.8)}).images[0]

Everything else is ``StableDiffusionPipeline``; the guidance itself is ``attncontrol.steer``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import StableDiffusionPipeline

from attncontrol import Descent, Objective, Where, losses, steer
from attncontrol.verbs.steer import Trace


class GuidedPipeline(StableDiffusionPipeline):  # type: ignore[misc]  # diffusers is untyped
    """``trace`` holds the losses of the last call."""

    trace: Trace | None = None

    def __call__(
        self,
        prompt: str | list[str],
        *args: Any,
        objective: str | Objective = "auto",
        words: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        boxes: Mapping[str, Any] | None = None,
        where: Where | None = None,
        descent: Descent | None = None,
        **kwargs: Any,
    ) -> Any:
        """As ``StableDiffusionPipeline``, with an objective: an instance, or the name of a method
        or ``"module:Name"``, made of ``words`` (None: nouns of the prompt) or of ``boxes`` (word
        -> (left, top, right, bottom) in 0 .. 1); ``where`` and ``descent`` are those of
        ``steer``."""
        guide: Objective
        guide = losses.method(objective, words, boxes) if isinstance(objective, str) else objective
        with steer(self, guide, where=where, descent=descent) as trace:
            result = super().__call__(prompt, *args, **kwargs)
        self.trace = trace
        return result
