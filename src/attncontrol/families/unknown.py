"""Any other denoiser with cross-attention: what its shapes tell.

Sites are the ``attn2`` modules. Text is their whole key side, in the order of the pipeline's only
tokenizer, and the picture their whole query side, patches of [batch channel height width]. The
order of the two halves of classifier-free guidance cannot be known: without a family only calls
with one branch work. To state it::

    from attncontrol.families import unknown
    from attncontrol.families.known import FAMILIES
    from attncontrol.families.parts import one_call

    mine = dataclasses.replace(unknown.FAMILY, name="mine", matches=..., branches=one_call)
    FAMILIES.insert(0, mine)
"""

from typing import Any

from torch import nn

from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import patch_layout, transformer_sites
from attncontrol.prompts.tokens import Token, tokenize


def denoiser_of(pipe: Any) -> Any:
    transformer = getattr(pipe, "transformer", None)
    return getattr(pipe, "unet", None) if transformer is None else transformer


def _matches(pipe: Any) -> bool:
    return (
        isinstance(denoiser_of(pipe), nn.Module)
        and len(_sites(denoiser_of(pipe))) > 0
        and tokenizer_of(pipe) is not None
    )


def tokenizer_of(pipe: Any) -> Any:
    tokenizers = [
        part
        for name, part in pipe.components.items()
        if name.startswith("tokenizer") and part is not None
    ]
    return tokenizers[0] if len(tokenizers) == 1 else None


def _sites(denoiser: Any) -> tuple[Site, ...]:
    return transformer_sites(
        denoiser,
        lambda name, module: "cross" if name.endswith("attn2") and _looks_away(module) else None,
        denoiser.config.get("patch_size") or 1,
    )


def _looks_away(module: Any) -> bool:
    """Not at what it looks from, as the second attention of SD 3.5 does."""
    return bool(getattr(module, "is_cross_attention", True))


def _branches(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    if nth or (parts or 1) > 1:
        raise ModelError(
            f"{type(pipe).__name__} belongs to no known family, so which half of classifier-free "
            "guidance is conditional is not known; switch guidance off, or state it: "
            "attncontrol.families.unknown says how"
        )
    return ("cond",)


def _encoders(pipe: Any) -> tuple[Encoder, ...]:
    names = [name for name, part in pipe.components.items() if part is tokenizer_of(pipe)]
    return (Encoder("text", names[0].replace("tokenizer", "text_encoder"), _read),)


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer = tokenizer_of(pipe)
    if tokenizer.padding_side == "left":
        raise ModelError(
            f"{type(pipe).__name__} fills its text up from the left by a number of positions that "
            "is not known"
        )
    return tokenize(tokenizer, prompt, length=encoding.get("max_sequence_length"), padding=False)


FAMILY = Family(
    name="unknown",
    matches=_matches,
    denoiser=denoiser_of,
    sites=_sites,
    branches=_branches,
    encoders=_encoders,
    layout=patch_layout,
    encode="what its pipeline does to latents before it decodes them is not described",
)
