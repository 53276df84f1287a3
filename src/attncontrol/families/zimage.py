"""Z-Image (``ZImageTransformer2DModel``): joint attention over [picture, Qwen3] in ``layers``; one
call, [cond, uncond].

Rows are lists; latents have a frame axis of length 1. Picture and text are each filled up to
multiples of 32 positions, and neither kind of filling is masked inside a row. The pipeline writes
the prompt into a chat template and drops padding. ``noise_refiner`` sees the picture alone;
``context_refiner``, which sees the text alone, is no site.
"""

from typing import Any

from diffusers import ZImageOmniPipeline, ZImageTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, chat, has_transformer, one_call, refiner_sites
from attncontrol.prompts.tokens import Token, tokenize

_MULTIPLE = 32


def _branches(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    return one_call(pipe, nth, parts)[::-1]


def _template(pipe: Any) -> tuple[str, str]:
    message = {"role": "user", "content": MARK}
    return chat(pipe.tokenizer, [message], add_generation_prompt=True, enable_thinking=True)


def _as_given(pipe: Any, prompts: Any) -> Any:
    """The prompts of a modular pipeline, whose block writes its template into a list of them."""
    if not isinstance(prompts, list):
        return prompts
    before, after = _template(pipe)
    return [text.removeprefix(before).removesuffix(after) for text in prompts]


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    around = _template(pipe)
    length = encoding["max_sequence_length"]
    return tokenize(
        pipe.tokenizer, prompt, length=length, padding=False, around=around, encoder="qwen"
    )


def filled_up(positions: int) -> int:
    """To a multiple."""
    return -(-positions // _MULTIPLE) * _MULTIPLE


def _layout(_: Any, arguments: Arguments, site: Site) -> Layout:
    picture = arguments["x"][0]
    patch = arguments.get("patch_size", 2)
    height, width = (side // patch for side in picture.shape[-2:])
    cells = height * width
    start = filled_up(cells)
    longest = max(len(text) for text in arguments["cap_feats"]) if site.kind == "joint" else 0
    return Layout((height, width), slice(cells), slice(start, start + longest))


FAMILY = Family(
    name="zimage",
    matches=has_transformer(ZImageTransformer2DModel, but=ZImageOmniPipeline),
    sites=refiner_sites,
    branches=_branches,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read),),
    layout=_layout,
    sample="x",
    time="t",
    unguided=0.0,
    as_given=_as_given,
)
