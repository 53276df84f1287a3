"""JoyImage-Edit (``JoyImageEditTransformer3DModel``): joint attention over [picture, the picture
that is given, Qwen3-VL], two calls per step.

The pipeline writes the prompt into a template, behind the given picture, and drops its system
message. The padding of a batch is not masked. The scheduler steps the given picture along with the
other, after which it is put back.
"""

import math
from typing import Any

from diffusers import JoyImageEditTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import cogview4, qwenimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, has_transformer, transformer_sites, two_calls
from attncontrol.prompts.tokens import Token, tokenize

PICTURE = f"<|vision_start|>{qwenimage.PLACE}<|vision_end|>"


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, lambda *_: "joint", transformer.config.patch_size[-1])


def _pictures(encoding: Arguments) -> list[Any]:
    pictures = encoding.get("images") or encoding.get("image") or []
    return pictures if isinstance(pictures, list) else [pictures]


def _around(pipe: Any, encoding: Arguments) -> tuple[str, str]:
    if not (pictures := _pictures(encoding)):
        before, after = pipe.prompt_template_encode["image"].format(MARK).split(MARK)
        return before, after
    said = f"<|im_start|>user\n{PICTURE}{MARK}<|im_end|>\n"
    written = pipe.prompt_template_encode["multiple_images"].format(said)
    before, after = qwenimage.spelled_out(pipe, written, pictures[:1]).split(MARK)
    return before, after


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer, around = pipe.tokenizer, _around(pipe, encoding)
    own = tokenize(tokenizer, prompt, padding=False, around=around, encoder="qwen")
    if not _pictures(encoding) or pipe.processor.tokenizer.padding_side != "left":
        return own
    before, after = around
    texts = cogview4.together(prompt, encoding)
    longest = max(len(tokenizer(before + text + after).input_ids) for text in texts)
    return cogview4.filled(tokenizer, own, longest, 1)


def _kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    shown, most = bool(_pictures(encoding)), encoding["max_sequence_length"]
    kind = "multiple_images" if shown else "image"
    kept = tokens[pipe.prompt_template_encode_start_idx[kind] :]
    return kept[-most:] if shown else kept[:most]


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    """Latents are [batch item channel frame height width], the noisy item last."""
    sample = arguments["hidden_states"]
    _, down, across = transformer.config.patch_size
    grid = sample.shape[-2] // down, sample.shape[-1] // across
    cells, items = math.prod(grid), sample.shape[1]
    others = tuple(Layout(grid, slice(k * cells, (k + 1) * cells)) for k in range(1, items))
    return Layout(grid, slice(cells), slice(items * cells, None), references=others)


FAMILY = Family(
    name="joyimage",
    matches=has_transformer(JoyImageEditTransformer3DModel),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    steering="the scheduler steps the given picture along with the other",
    latents=lambda _, __: (slice(None), slice(-1, None)),
    channels=2,
    encode="it makes a picture of another one",
)
