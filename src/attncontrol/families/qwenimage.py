"""Qwen-Image (``QwenImageTransformer2DModel``): joint attention over [Qwen2.5-VL, picture], packed
latents, two calls per step.

The pipeline writes the prompt into a template and drops the positions before the prompt. Padding is
masked. Reference pictures of editing models follow the picture; Qwen2.5-VL reads them too, before
the prompt, each at as many positions as its processor says.
"""

import math
from typing import Any

from diffusers import QwenImageLayeredPipeline, QwenImageTransformer2DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import CallError
from attncontrol.families.autoencoder import standardised
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.flux import PATCH
from attncontrol.families.parts import (
    MARK,
    has_transformer,
    in_line,
    said_by,
    text_length,
    transformer_sites,
    two_calls,
)
from attncontrol.prompts.tokens import Token, tokenize

PLACE = "<|image_pad|>"
"""What the text encoder reads at every position of a picture."""


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, lambda *_: "joint", PATCH)


def read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    before, after = said_by(pipe, "prompt_template_encode").format(MARK).split(MARK)
    if (pictures := pictures_of(encoding)) is not None:
        before, length = _with_pictures(pipe, before, pictures), None
    else:
        length = said_by(pipe, "tokenizer_max_length") + _dropped(pipe)
    # modular pipelines that edit have the tokenizer in the processor alone
    tokenizer = getattr(pipe, "tokenizer", None) or pipe.processor.tokenizer
    return tokenize(
        tokenizer, prompt, length=length, padding=False, around=(before, after), encoder="qwen"
    )


def _dropped(pipe: Any) -> int:
    dropped: int = said_by(pipe, "prompt_template_encode_start_idx")
    return dropped


def pictures_of(encoding: Arguments) -> Any:
    """Those that the text encoder reads; blocks of modular pipelines name the scaled ones."""
    names = "resized_cond_image", "resized_image", "image"
    return next((encoding[name] for name in names if encoding.get(name) is not None), None)


def _with_pictures(pipe: Any, template: str, pictures: Any) -> str:
    """What is written before the prompt; a template that names no picture is followed by all of
    them."""
    pictures = pictures if isinstance(pictures, list) else [pictures]
    if PLACE not in template:
        template += "".join(
            f"Picture {nth}: <|vision_start|>{PLACE}<|vision_end|>"
            for nth in range(1, len(pictures) + 1)
        )
    return spelled_out(pipe, template, pictures)


def spelled_out(pipe: Any, template: str, pictures: list[Any]) -> str:
    """A template with as many places as each of its pictures has positions."""
    processor = pipe.processor.image_processor
    patches = processor(images=pictures, return_tensors="pt")["image_grid_thw"].prod(1)
    counts = (patches // processor.merge_size**2).tolist()
    first, *others = template.split(PLACE)
    texts = [PLACE * count + other for count, other in zip(counts, others, strict=True)]
    return first + "".join(texts)


def kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    reads_pictures = pictures_of(encoding) is not None
    return tokens[_dropped(pipe) :][: None if reads_pictures else encoding["max_sequence_length"]]


def grids(arguments: Arguments) -> list[tuple[int, int]]:
    """``img_shapes`` lists for every prompt (frames, height, width) of the picture, then those of
    the references."""
    shapes = arguments["img_shapes"][0]
    shapes = shapes if isinstance(shapes, list) else [shapes]
    return [(height, width) for _, height, width in shapes]


def _latents(_: Any, arguments: Arguments) -> tuple[slice, ...]:
    if arguments.get("additional_t_cond") is not None:
        raise CallError(
            "several layers of a picture at once are not supported in a modular pipeline; use "
            "QwenImageLayeredPipeline"
        )
    return slice(None), slice(math.prod(grids(arguments)[0]))


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    return in_line(text_length(arguments), grids(arguments))


def encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Its autoencoder is one of videos."""
    latents = standardised(pipe, pictures[:, :, None])[:, :, 0]
    packed: Tensor = pipe._pack_latents(latents, *latents.shape)
    return packed


FAMILY = Family(
    name="qwenimage",
    matches=has_transformer(QwenImageTransformer2DModel, but=QwenImageLayeredPipeline),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", read, kept=kept),),
    layout=_layout,
    latents=_latents,
    encode=encode,
    further="words",
)
