"""JoyImage-Edit-Plus (``JoyImageEditPlusTransformer3DModel``): joint attention over [picture, the
pictures that are given, filling, Qwen3-VL], [uncond, cond] in one call per step.

Latents are patches of all pictures, [batch patch channel frame height width], and the scheduler
steps those of the given ones along, after which they are put back. The pipeline writes the prompt
into a template, behind the given pictures, and drops its system message; filling is masked.
"""

import math
from typing import Any

from diffusers import JoyImageEditPlusTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import cogview4, joyimage, qwenimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, UNCUT, has_transformer, in_line, one_call
from attncontrol.prompts.tokens import Token, tokenize


def _pictures(pipe: Any, prompt: str, encoding: Arguments) -> list[Any]:
    """Those of a prompt, in the size that the pipeline gives them; a list of some is for one."""
    given = encoding.get("images") or []
    samples = given if given and isinstance(given[0], list | tuple) else [given]
    place = cogview4.together(prompt, encoding).index(prompt)
    sizes, own = pipe.image_processor, samples[place] if place < len(samples) else []
    return [sizes.resize_center_crop(one, sizes.get_default_height_width(one)) for one in own]


def _own(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    """A negative prompt that is not given is a space."""
    pictures = _pictures(pipe, prompt, encoding)
    said = f"<|im_start|>user\n{joyimage.PICTURE * len(pictures)}{MARK}<|im_end|>\n"
    written = pipe.prompt_template_encode["multiple_images"].format(said)
    written = qwenimage.spelled_out(pipe, written, pictures) if pictures else written
    before, after = written.split(MARK)
    return tokenize(
        pipe.tokenizer, prompt or " ", length=UNCUT, padding=False, around=(before, after),
        encoder="qwen",
    )  # fmt: skip


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    own = _own(pipe, prompt, encoding)
    if pipe.processor.tokenizer.padding_side != "left":
        return own
    texts = cogview4.together(prompt, encoding)
    longest = max(len(_own(pipe, text, encoding)) for text in texts)
    return cogview4.filled(pipe.tokenizer, own, longest, 1)


def _kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    dropped = pipe.prompt_template_encode_start_idx["multiple_images"]
    return tokens[dropped:][-encoding["max_sequence_length"] :]


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    """The picture has the same size in all rows."""
    shapes = [[(height, width) for _, height, width in row] for row in arguments["shape_list"]]
    text = slice(arguments["hidden_states"].shape[1], None)
    own = Layout(shapes[0][0], slice(math.prod(shapes[0][0])), text)
    return own.reading([in_line(0, row).references for row in shapes])


FAMILY = Family(
    name="joyimage-plus",
    matches=has_transformer(JoyImageEditPlusTransformer3DModel),
    sites=joyimage.FAMILY.sites,
    branches=one_call,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    steering="the scheduler steps the given pictures along with the other",
    latents=lambda _, arguments: (slice(None), slice(math.prod(arguments["shape_list"][0][0]))),
    encode="it makes a picture of others",
    rows_of={"shape_list": lambda given, rows: [given["shape_list"][row] for row in rows]},
    patched=True,
)
