"""Stable Diffusion 2: as ``unet``, but the tokens of a prompt compete among themselves.

The official codes of Attend-and-Excite and BoxDiff have a flag for this model (``normalize_eot``):
without start, end and padding in the softmax over tokens. It is known by its tokenizer, which pads
with another token ("!") than the one that ends a text; SD 1 pads with that one.
"""

from dataclasses import replace
from typing import Any

from attncontrol.families import unet


def _matches(pipe: Any) -> bool:
    tokenizer = getattr(pipe, "tokenizer", None)
    return (
        unet.FAMILY.matches(pipe)
        and tokenizer is not None
        and getattr(pipe, "tokenizer_2", None) is None
        and tokenizer.pad_token_id != tokenizer.eos_token_id
    )


FAMILY = replace(unet.FAMILY, name="sd2", matches=_matches, contrast=None)
