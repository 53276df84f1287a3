"""OmniGen (``OmniGenTransformer2DModel``): self-attention over [text, time, picture] in one call
per step, whatever the guidance scale is: [cond, uncond], and with pictures to read [cond, uncond,
reference], of which the last reads these pictures without the prompt.

The transformer embeds the ids of the text itself, and text sees the text before it alone. The
pipeline's processor writes the prompt into a template, always reads a negative prompt of its own,
and fills up from the left to the longest text of a call, which is masked. Pictures to read lie in
the text, where the prompt says <img><|image_1|></img>; their cells see each other.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any

import torch
from diffusers import OmniGenTransformer2DModel
from PIL import Image
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import CallError
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import NUMBER, Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, UNCUT, has_transformer, joint_sites, patch_grid
from attncontrol.prompts.tokens import Token, tokenize

_CELL = 16 * 16  # pixels
_PLACE = re.compile(r"<\|image_(\d+)\|>")
_BEGIN = 1  # which the processor takes from what follows a picture


def _branches(_: Any, __: int, parts: int | None) -> tuple[str, ...]:
    return ("cond", "uncond", "reference")[: parts or 2]


def _asked(encoding: Arguments, prompt: str = "") -> tuple[list[str], list[Sequence[Any]]]:
    """The prompts of a call, and the pictures that each reads."""
    given, pictures = encoding.get("prompt") or prompt, encoding.get("input_images")
    if isinstance(given, str):
        return [given], [pictures or ()]
    return list(given), [of or () for of in pictures or [None] * len(given)]


def _reference(encoding: Arguments) -> list[str]:
    """The texts of rows without the prompt: the pictures, the negative prompt where there are
    none."""
    return [
        " ".join(f"<img><|image_{k + 1}|></img>" for k in range(len(pictures)))
        or encoding["negative_prompt"]
        for pictures in _asked(encoding)[1]
    ]


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    processor, (prompts, pictures) = pipe.multimodal_processor, _asked(encoding, prompt)
    sizes = [[_size(picture, processor.max_image_size) for picture in of] for of in pictures]
    number = encoding.get(NUMBER, prompts.index(prompt) if prompt in prompts else 0)
    own = _tokens(processor, prompt, [prod(size) // _CELL for size in sizes[number]])
    alone = zip(_reference(encoding), sizes, strict=True)
    others = [*zip(prompts, sizes, strict=True), *alone, (encoding["negative_prompt"], [])]
    longest = max(len(own), *(_length(processor, *other) for other in others))
    filling = processor.collator.pad_token_id
    text = processor.text_tokenizer.convert_ids_to_tokens(filling)
    pad = Token(0, filling, text, 0, 0, special=True)
    filled = [*[pad] * (longest - len(own)), *own]
    return tuple(replace(token, index=i) for i, token in enumerate(filled))


def _tokens(processor: Any, prompt: str, cells: Sequence[int]) -> list[Token]:
    """Those of the text between the pictures, each read by itself, and the cells of the pictures.
    Raises CallError."""
    before, after = processor.add_prefix_instruction(MARK).split(MARK)
    found, at = [], 0
    for place in (*_PLACE.finditer(prompt), None):
        end = len(prompt) if place is None else place.start()
        around = "" if at else before, after if place is None else ""
        tokens = tokenize(
            processor.text_tokenizer, prompt[at:end], length=UNCUT, padding=False, around=around
        )
        tokens = tokens[1:] if at and tokens and tokens[0].id == _BEGIN else tokens
        found += [replace(one, start=one.start + at, end=one.end + at) for one in tokens]
        if place is not None:
            if not 0 < (number := int(place[1])) <= len(cells):
                raise CallError(
                    f"the prompt names picture {number}, but input_images=... has {len(cells)} "
                    "for it: give it as many as it names, numbered from 1"
                )
            found += [Token(0, 0, place[0], 0, 0, special=True)] * cells[number - 1]
            at = place.end()
    return found


def _length(processor: Any, prompt: str, sizes: Sequence[tuple[int, int]]) -> int:
    pictures = [torch.empty(size, device="meta") for size in sizes]
    return len(processor.process_multi_modal_prompt(prompt, pictures)["input_ids"])


def _size(picture: Any, most: int) -> tuple[int, int]:
    """That which the processor gives a picture, or a file."""
    return _cropped(Image.open(picture).size if isinstance(picture, str) else picture.size, most)


@cache
def _cropped(size: tuple[int, int], most: int) -> tuple[int, int]:
    from diffusers.pipelines.omnigen.processor_omnigen import crop_image

    return crop_image(Image.new("L", size), most).size


def _references(transformer: Any, arguments: Arguments) -> tuple[tuple[Layout, ...], ...]:
    """The pictures that each row reads, in the order of its text."""
    places, patch = arguments["input_image_sizes"], transformer.config.patch_size
    latents = iter(arguments["input_img_latents"])
    found = {
        row: tuple(
            Layout(tuple(side // patch for side in next(latents).shape[-2:]), slice(*place))
            for place in of_row
        )
        for row, of_row in places.items()
    }
    return tuple(found.get(row, ()) for row in range(len(arguments["input_ids"])))


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    height, width = patch_grid(transformer, arguments)
    text = arguments["input_ids"].shape[1]
    first = text + 1  # behind the time
    own = Layout((height, width), slice(first, first + height * width), slice(text))
    return own.reading(_references(transformer, arguments))


def _places_of(arguments: Arguments, rows: Tensor) -> dict[int, Any]:
    places, numbered = arguments["input_image_sizes"], enumerate(rows.tolist())
    return {new: places[old] for new, old in numbered if old in places}


def _latents_of(arguments: Arguments, rows: Tensor) -> list[Tensor]:
    """They lie one after another, row by row."""
    latents = iter(arguments["input_img_latents"])
    of_rows = {
        row: [next(latents) for _ in of_row]
        for row, of_row in arguments["input_image_sizes"].items()
    }
    return [one for row in rows.tolist() for one in of_rows.get(row, [])]


FAMILY = Family(
    name="omnigen",
    matches=has_transformer(OmniGenTransformer2DModel),
    sites=joint_sites,
    branches=_branches,
    encoders=lambda _: (Encoder("text", "transformer", _read),),
    layout=_layout,
    batch_axis={"position_ids": None},  # rotations are those of the first row in all rows
    rows_of={"input_image_sizes": _places_of, "input_img_latents": _latents_of},
    reference=_reference,
    encode=scaled,
)
