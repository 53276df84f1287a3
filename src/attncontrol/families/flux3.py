"""FLUX.3 (``Flux3Transformer2DModel``): blocks of text, picture and reference pictures apart, then
joint attention over [Qwen3-VL, picture, references]; packed latents, two calls per step.

There are modular pipelines alone, for one prompt per call. Their blocks write it into a chat
template and fill up to a multiple of ``pad_multiple`` positions, which are not masked. A block that
writes the prompt anew comes before: words are those of what it wrote. ``img_ids`` hold (time, row,
column, place in line), rows and columns scaled; references have the places -1, -2 ... Blocks of the
text or the references alone are no sites. The distilled form makes one call.
"""

from typing import Any

from diffusers import Flux3Transformer2DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.flux import PATCH
from attncontrol.families.parts import (
    MARK,
    chat,
    has_transformer,
    in_line,
    said_by,
    text_length,
    transformer_sites,
    two_calls,
)
from attncontrol.prompts.tokens import Token, tokenize


def _kind(name: str, _: Any) -> Kind | None:
    if name.startswith("single_transformer_blocks"):
        return "joint"
    return "self" if name.startswith("mode_blocks.image.") else None


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    message = {"role": "user", "content": MARK}
    around = chat(pipe.tokenizer, [message], add_generation_prompt=True)
    tokenizer, longest = pipe.tokenizer.tokenizer, encoding["max_sequence_length"]
    tokens = tokenize(
        tokenizer, prompt, length=longest, padding=False, around=around, encoder="qwen"
    )
    multiple = said_by(pipe, "pad_multiple")
    filled = min(-(-len(tokens) // multiple) * multiple, longest)
    # on the right, whatever side the tokenizer is set to
    pad = tokenizer.pad_token_id, tokenizer.pad_token
    return *tokens, *(Token(i, *pad, 0, 0, True, "qwen") for i in range(len(tokens), filled))


def _grid(ids: Tensor) -> tuple[int, int]:
    return len(ids[:, 1].unique()), len(ids[:, 2].unique())


def _layout(_: Any, arguments: Arguments, site: Site) -> Layout:
    grid, ids = _grid(arguments["img_ids"]), arguments.get("image_cond_ids")
    if site.kind == "self":
        return Layout(grid, text=slice(0))
    if ids is None:
        return in_line(text_length(arguments), [grid])
    places = ids[:, 3].unique().flip(0)
    references = [_grid(ids[ids[:, 3] == place]) for place in places]
    return in_line(text_length(arguments), [grid, *references])


FAMILY = Family(
    name="flux3",
    matches=has_transformer(Flux3Transformer2DModel),
    sites=lambda transformer: transformer_sites(transformer, _kind, PATCH),
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read),),
    layout=_layout,
    encode="it is a modular pipeline",
    batch_axis={"img_ids": None, "txt_ids": None, "image_cond_ids": None},
)
