"""Nucleus-Image (``NucleusMoEImageTransformer2DModel``): the picture attends to [picture,
Qwen3-VL], packed latents, two calls per step. Text has no queries.

The pipeline writes the prompt into a template and fills up to the longest of a batch and on to a
multiple of 8 positions, which are masked. Which cells an expert takes has no gradient, how much it
does has.
"""

from typing import Any

from diffusers import NucleusMoEImageTransformer2DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import cogview4
from attncontrol.families.autoencoder import standardised
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, has_transformer, joint_sites, two_calls
from attncontrol.prompts.tokens import Token, tokenize

_MULTIPLE = 8


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    before, after = pipe._format_prompt(MARK).split(MARK)
    tokenizer = pipe.processor.tokenizer
    most = encoding.get("max_sequence_length") or pipe.default_max_sequence_length
    own = tokenize(
        tokenizer, prompt, length=most, padding=False, around=(before, after), encoder="qwen"
    )
    if tokenizer.padding_side != "left":
        return own
    texts = cogview4.together(prompt, encoding)
    longest = max(len(tokenizer(before + text + after).input_ids) for text in texts)
    return cogview4.filled(tokenizer, own, min(longest, most), _MULTIPLE)


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    shapes = arguments["img_shapes"]
    _, height, width = shapes[0] if isinstance(shapes, list) else shapes
    cells = height * width
    return Layout((height, width), slice(cells), slice(cells, None))


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Its autoencoder is one of videos."""
    latents = standardised(pipe, pictures[:, :, None])[:, :, 0]
    patch = pipe.transformer.config.patch_size
    packed: Tensor = pipe._pack_latents(latents, *latents.shape, patch)
    return packed


FAMILY = Family(
    name="nucleus",
    matches=has_transformer(NucleusMoEImageTransformer2DModel),
    sites=joint_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read),),
    layout=_layout,
    encode=_encode,
)
