"""DreamLite (``DreamLiteUNetModel``): a UNet whose lines of cells hold two pictures, the one that
is made in the left half and the one that is given, or an empty one, in the right half.

Text is the key side of every ``attn2``; some blocks have no self-attention. [uncond, cond] in one
call per step, with a picture [uncond, reference, cond], of which the first two read the negative
prompt; the mobile model makes one row. The pipeline writes a task before the prompt, into a
template of which it drops the beginning; what fills up is masked.
"""

from typing import Any

import torch
from diffusers import DreamLiteUNetModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import CallError
from attncontrol.families import qwenimage, unet
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import UNCUT
from attncontrol.prompts.tokens import Token, tokenize

_GENERATE = "[Generate]: "
_EDIT = (
    "[Edit]: A diptych with two side-by-side images of the same scene. Compared to the right side, "
    "the left one has "
)
_SIDE = 512  # pixels of the picture that the text encoder reads
_BRANCHES = {1: ("cond",), 2: ("uncond", "cond"), 3: ("uncond", "reference", "cond")}


def _branches(_: Any, __: int, parts: int | None) -> tuple[str, ...]:
    return _BRANCHES.get(parts or 0, ())


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    shown = encoding.get("image")
    task = (_GENERATE if shown is None else _EDIT) if encoding.get("has_task", True) else ""
    tokenizer, length = pipe.tokenizer, encoding["max_sequence_length"] + _dropped(pipe, encoding)
    before, after = pipe.prompt_template_encode_generate.split("{}")
    if shown is not None:
        tokenizer, length = pipe.processor.tokenizer, UNCUT
        before, after = pipe.prompt_template_encode_edit.split("{}")
        scaled = pipe.image_processor.resize(shown, height=_SIDE, width=_SIDE)
        before = qwenimage.spelled_out(pipe, before, [scaled])
    around = before + task, after
    return tokenize(tokenizer, prompt, length=length, padding=False, around=around, encoder="qwen")


def _dropped(pipe: Any, encoding: Arguments) -> int:
    mode = "generate" if encoding.get("image") is None else "edit"
    dropped: int = getattr(pipe, f"prompt_template_encode_{mode}_start_idx")
    return dropped


def _kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tokens[_dropped(pipe, encoding) :]


def _layout(_: Any, arguments: Arguments, site: Site) -> Layout:
    """The picture first, then the one beside it."""
    rows, columns = arguments["sample"].shape[-2:]
    own = columns // 2
    (height, width), (_, line) = site.grid(rows, own), site.grid(rows, columns)
    if line != 2 * width:
        raise CallError(
            f"at {site.name} a line has {line} cells, so that one of them belongs to the picture "
            "and to the one beside it; choose a width whose latents have a number of columns that "
            f"is a multiple of {site.stride}, not {own}"
        )
    cells = height * width
    order = torch.arange(2 * cells).view(height, 2, width).transpose(0, 1).flatten()
    beside = Layout((height, width), slice(cells, 2 * cells))
    return Layout((height, width), slice(cells), references=(beside,), order=order)


def _latents(_: Any, arguments: Arguments) -> tuple[slice, ...]:
    return (*[slice(None)] * 3, slice(arguments["sample"].shape[-1] // 2))


FAMILY = Family(
    name="dreamlite",
    matches=lambda pipe: isinstance(getattr(pipe, "unet", None), DreamLiteUNetModel),
    denoiser=lambda pipe: pipe.unet,
    sites=unet.FAMILY.sites,
    branches=_branches,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    steering=unet.FAMILY.steering,
    sample="sample",
    latents=_latents,
    negative={"has_task": False},
)
