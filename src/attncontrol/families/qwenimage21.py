"""Qwen-Image 2.1 (``QwenImage21Transformer2DModel``): [Qwen3-VL, picture] in one sequence, packed
latents, two calls per step.

Text sees the text before it alone, at time 0, so its keys and values are the same in every step:
the pipeline keeps those of the first. A site is the attention of the picture to [text, picture];
text has no queries in it. The pipeline drops the positions of its system message. Reference
pictures lie within the text, where Qwen3-VL reads them, each of its positions standing for four
cells. Padding on the right is masked.
"""

from typing import Any

import torch
from diffusers import QwenImage21Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage21 import (
    QwenImage21FlexAttnProcessor,
    QwenImage21KVCache,
)
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import BackendError
from attncontrol.families import qwenimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import has_transformer, is_modular, joint_sites, two_calls
from attncontrol.prompts.origin import aligned
from attncontrol.prompts.tokens import Token, tokenize

_CELLS = 4  # of a position at which the text encoder reads a picture
_PICTURE = "<image{}><|vision_start|><|image_pad|><|vision_end|>"


def _sites(transformer: Any) -> tuple[Site, ...]:
    sites = joint_sites(transformer)
    processors = [transformer.get_submodule(site.name).processor for site in sites]
    if any(isinstance(processor, QwenImage21FlexAttnProcessor) for processor in processors):
        raise BackendError(
            "QwenImage21FlexAttnProcessor computes text and picture in one call of flex_attention, "
            "which is not seen; call pipe.transformer.set_attn_processor(QwenImage21AttnProcessor()"
            ") before the block"
        )
    return sites


def _system(pipe: Any) -> str:
    """The system message, a constant beside the blocks of a modular pipeline."""
    if not is_modular(pipe):
        return str(pipe.sys_prompt)
    from diffusers.modular_pipelines.qwenimage21 import encoders  # loaded with its blocks

    return str(encoders.QWENIMAGE21_SYSTEM_PROMPT)


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    before = f"<|im_start|>system\n{_system(pipe)}<|im_end|>\n<|im_start|>user\n"
    if pictures := qwenimage.pictures_of(encoding):
        places = " ".join(_PICTURE.format(nth + 1) for nth in range(len(pictures)))
        before = qwenimage.spelled_out(pipe, before + places, pictures)
    text = prompt or " "  # as the pipeline writes where there is none
    return tokenize(
        pipe.processor.tokenizer, prompt, padding=False, encoder="qwen",
        around=(before, "<|im_end|>\n<|im_start|>assistant\n"),
        written=(text, aligned(prompt, text)),
    )  # fmt: skip


def _kept(pipe: Any, _: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    said = [{"role": "system", "content": [{"type": "text", "text": _system(pipe)}]}]
    dropped = len(pipe.processor.apply_chat_template(said, tokenize=True, return_dict=False)[0])
    return tuple(
        token
        for token in tokens[dropped:]
        for _ in range(_CELLS if token.text == qwenimage.PLACE else 1)
    )


def _text(arguments: Arguments) -> list[int]:
    """How many keys each position of what Qwen3-VL read has."""
    of_pictures = arguments["img_mask"][0, : arguments["encoder_hidden_states"].shape[1]]
    return torch.where(of_pictures, _CELLS, 1).tolist()


def _latents(_: Any, arguments: Arguments) -> tuple[slice, ...]:
    """Reference pictures come first."""
    _, height, width = arguments["img_shapes"][0][-1]
    return slice(None), slice(-height * width, None)


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    """The picture lies last, among its queries and among all keys."""
    *others, (_, height, width) = arguments["img_shapes"][0]
    counts, at = _text(arguments), 0
    references = []
    for _, down, across in others:
        at = counts.index(_CELLS, at)
        start, at = sum(counts[:at]), at + down * across // _CELLS
        references.append(Layout((down, across), slice(start, start + down * across)))
    return Layout(
        (height, width), slice(-height * width, None), slice(sum(counts)),
        references=tuple(references),
    )  # fmt: skip


def _of_rows(arguments: Arguments, rows: Tensor) -> QwenImage21KVCache | None:
    """What further passes read of the keys and values of the text, or write into one of theirs."""
    kept: QwenImage21KVCache | None = arguments["kv_cache"]
    if kept is None:
        return None
    other = QwenImage21KVCache(len(kept.layer_caches))
    for old, new in zip(kept.layer_caches, other.layer_caches, strict=True):
        if old.k is not None:
            new.store(*(states[rows.to(states.device)] for states in old.get()))
    return other


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """The autoencoder takes an opaque fourth channel."""
    opaque = torch.ones_like(pictures[:, :1])
    return qwenimage.encode(pipe, torch.cat([pictures, opaque], 1))


FAMILY = Family(
    name="qwenimage21",
    matches=has_transformer(QwenImage21Transformer2DModel),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    latents=_latents,
    encode=_encode,
    rows_of={"kv_cache": _of_rows},
)
