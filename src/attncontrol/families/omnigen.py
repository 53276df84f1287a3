"""OmniGen (``OmniGenTransformer2DModel``): self-attention over [text, time, picture],
[cond, uncond] in one call per step, whatever the guidance scale is.

The transformer embeds the ids of the text itself, and text sees the text before it alone. The
pipeline's processor writes the prompt into a template, always reads a negative prompt of its own,
and fills up from the left to the longest text of a call, which is masked.
"""

from dataclasses import replace
from typing import Any

from diffusers import OmniGenTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.errors import CallError
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, UNCUT, joint_sites, patch_grid
from attncontrol.prompts.tokens import Token, tokenize


def _branches(_: Any, __: int, parts: int | None) -> tuple[str, ...]:
    if parts not in (None, 2):
        raise CallError(
            "OmniGen with pictures to read, which have a third row for every image, is not "
            "described; call it without input_images=..."
        )
    return "cond", "uncond"


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    processor = pipe.multimodal_processor
    tokenizer, written = processor.text_tokenizer, processor.add_prefix_instruction
    before, after = written(MARK).split(MARK)
    own = tokenize(tokenizer, prompt, length=UNCUT, padding=False, around=(before, after))
    given = encoding.get("prompt") or ()
    together = (given,) if isinstance(given, str) else given
    texts = {prompt, encoding["negative_prompt"], *together}
    longest = max(len(tokenizer(written(text)).input_ids) for text in texts)
    filling = processor.collator.pad_token_id
    pad = Token(0, filling, tokenizer.convert_ids_to_tokens(filling), 0, 0, special=True)
    filled = [*[pad] * (longest - len(own)), *own]
    return tuple(replace(token, index=i) for i, token in enumerate(filled))


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    height, width = patch_grid(transformer, arguments)
    text = arguments["input_ids"].shape[1]
    first = text + 1  # behind the time
    return Layout((height, width), slice(first, first + height * width), slice(text))


FAMILY = Family(
    name="omnigen",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), OmniGenTransformer2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=joint_sites,
    branches=_branches,
    encoders=lambda _: (Encoder("text", "transformer", _read),),
    layout=_layout,
    steering=lambda _: (Where(kind="joint"), None),
    batch_axis={"position_ids": None},  # rotations are those of the first row in all rows
    encode="its scheduler counts from noise to the picture, which is not described",
)
