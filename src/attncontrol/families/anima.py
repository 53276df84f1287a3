"""Anima (``CosmosTransformer3DModel`` in modular pipelines): self-attention over the patches, then
cross-attention to the text; two calls per step.

A conditioner mixes what Qwen3 makes of the prompt into the pieces that T5's tokenizer makes of it:
the text has a position for each of these, filled up with zeros, which are not masked.
"""

from typing import Any

from diffusers import CosmosTransformer3DModel

from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import cross_sites, is_modular, two_calls, video_layout
from attncontrol.prompts.tokens import Token, tokenize


def _matches(pipe: Any) -> bool:
    transformer = getattr(pipe, "transformer", None)
    conditions = is_modular(pipe) and "text_conditioner" in pipe.components
    return conditions and isinstance(transformer, CosmosTransformer3DModel)


def _heard(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    """What Qwen3 reads, none of whose positions the denoiser does."""
    length = encoding["max_sequence_length"]
    return tokenize(pipe.tokenizer, prompt, length=length, padding=False, encoder="qwen")


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    length = encoding["max_sequence_length"]
    return tokenize(pipe.t5_tokenizer, prompt, length=length, padding=False, encoder="t5")


def _encoders(_: Any) -> tuple[Encoder, ...]:
    heard = Encoder("qwen", "text_encoder", _heard, kept=lambda *_: ())
    return heard, Encoder("t5", None, _read)


FAMILY = Family(
    name="anima",
    matches=_matches,
    sites=cross_sites,
    branches=two_calls,
    encoders=_encoders,
    layout=video_layout,
    encode="pipelines of blocks have no method for that",
    batch_axis={"padding_mask": None},
)
