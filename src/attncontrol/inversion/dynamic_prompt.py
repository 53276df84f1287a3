"""Dynamic prompt learning (Yang et al. 2023, arXiv 2309.15664): null-text inversion, in every step
of which the embeddings of the nouns are first made to attend to what they name.

    v_t = argmin balance + 0.05 disjoint + 0.05 background       from v of the step before
    0_t as in null-text inversion, with the prompt whose nouns are v_t

The losses are those of ``_leakage``; v is what the text encoder reads. AdamW with rate 0.001, until
they are below 0.3 exp(-i / 25), 0.9 exp(-i / 25) and 0.7 exp(-i / 50) in step i, but at most
``rounds`` updates. Officially 21, and 51 updates of every null text instead of 10. The background
is found by attention on the way of the inversion, in one more pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attncontrol.checks.arguments import Count, NotNegative, Positive, SomeWords
from attncontrol.errors import ModelError
from attncontrol.inversion._driven import driven
from attncontrol.inversion._learning import Learning, Watching, along
from attncontrol.inversion._method import Back, Inversion, Learned, straight
from attncontrol.inversion._schedule import Looks, Schedule
from attncontrol.inversion._words import embedded, encoded, moved, require_plain_texts, with_texts
from attncontrol.inversion.negative_prompt import require_branches
from attncontrol.inversion.null_text import NullText, onwards, with_null
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session


@dataclass(frozen=True)
class DynamicPrompt(Inversion):
    """As ``NullText``, for edits by maps: words attend less to the background and to each other's
    things. The images that start from the picture's noise have its unconditional embeddings, and
    the learned nouns wherever their prompts keep these words.

        method = DynamicPrompt(7.5, words=["cat", "frog"])
        trajectory = invert(pipe, photo, "a red cat and a frog", method=method)

    ``words`` None: the nouns of the prompt, by its parse. Where these find their things anyway, the
    published thresholds are reached at once and nothing is learned. For Stable Diffusion 1 and 2.
    """

    gradients: ClassVar[bool] = True
    by_step: ClassVar[bool] = True

    guidance_scale: Positive = 7.5
    rounds: Count = 21
    iterations: Count = 10
    threshold: NotNegative = 1e-5
    words: SomeWords | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words is not None:
            object.__setattr__(self, "words", tuple(self.words))  # as files have it

    def require(self, run: Session) -> None:
        known = run.family.name in ("unet", "sd2")
        if not known or getattr(run.pipe, "text_encoder_2", None) is not None:
            raise ModelError(
                "DynamicPrompt learns what the one text encoder of Stable Diffusion 1 and 2 reads, "
                f"not for {type(run.pipe).__name__}: invert with NullText() or Exact()"
            )

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        return straight(picture, schedule)

    def fed(self, call: DenoiserCall, back: Back) -> DenoiserCall:
        require_branches(call, self)
        learned = back.learned
        assert learned is not None  # of this method
        if call.is_first:
            require_plain_texts(call, _texts(call, back, None))
        index, pictures = call.step.index, [back.of[image] for image in call.images]
        call = with_texts(call, _texts(call, back, learned))
        return with_null(call, learned.embeddings[pictures, index])

    def learned(
        self, back: Back, call: Mapping[str, Any], keep: Callable[[Learned], None]
    ) -> Learned:
        watching = Watching(self.words, back)
        driven(back.run, along(back.latents), back.latents[:, 0], call, watching.fed)
        null = NullText(self.guidance_scale, self.iterations, self.threshold)
        learning = Learning.begun(self.rounds, null, watching, keep)
        arguments = {**call, "guidance_scale": self.guidance_scale}
        driven(back.run, onwards, back.latents[:, 0], arguments, learning.fed)
        return learning.learned


def _texts(call: DenoiserCall, back: Back, learned: Learned | None) -> Tensor:
    """[image position channel], with the nouns that their prompts share with the pictures'."""
    facts, pipe, texts = back.facts, back.run.pipe, []
    for image in call.images:
        tokens, picture = call.text.tokens(image), back.of[image]
        here: list[int] = []
        vectors = embedded(pipe, tokens, here)
        if learned is not None:
            assert learned.nouns is not None  # of this method
            assert learned.places is not None
            places = [place for place in learned.places[picture].tolist() if place >= 0]
            prompts = str(facts.prompts[picture]), str(call.text.prompts[image])
            numbers, here = moved(facts.tokens[picture], tokens, prompts, places)
            vectors = learned.nouns[picture, call.step.index, numbers].to(vectors.device)
        texts.append(encoded(pipe, tokens, here, vectors))
    return torch.cat(texts)
