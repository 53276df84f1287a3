"""LongCat-Image (``LongCatImageTransformer2DModel``): the layout of FLUX.1, with text of
Qwen2.5-VL; two calls per step.

The pipeline fills the prompt up to ``tokenizer_max_length`` positions, which are not masked,
between the two parts of a template, whose positions it drops. What stands in quotation marks
it reads letter by letter. It rewrites the prompt unless it is called with
``enable_prompt_rewrite=False``: words are those that it reads.
"""

from dataclasses import replace
from typing import Any

from diffusers import LongCatImageTransformer2DModel

from attncontrol.attention.sites import Where
from attncontrol.errors import ModelError
from attncontrol.families import flux
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.parts import has_transformer
from attncontrol.prompts.tokens import Token, tokenize


def _pieces(pipe: Any, prompt: str) -> list[tuple[str, int]]:
    """What is tokenized by itself, and where it begins: the texts between quotations, and the
    letters of these."""
    from diffusers.pipelines.longcat_image.pipeline_longcat_image import split_quotation

    if pipe.tokenizer.padding_side != "right":
        raise ModelError("a tokenizer of LongCat-Image that fills up from the left is not known")
    pieces, at = [], 0
    for part, quoted in split_quotation(prompt):
        texts = list(part) if quoted else [part]
        for text in texts:
            pieces.append((text, at))
            at += len(text)
    return pieces


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    def plain(text: str, length: int | None = None) -> tuple[Token, ...]:
        return tokenize(
            pipe.tokenizer, text, padding=False, add_special_tokens=False, encoder="qwen",
            length=length,
        )  # fmt: skip

    length, pad = pipe.tokenizer_max_length, pipe.tokenizer.pad_token_id
    said = [
        replace(token, start=token.start + at, end=token.end + at)
        for text, at in _pieces(pipe, prompt)
        for token in plain(text)
    ][:length]
    filling = [Token(0, pad, pipe.tokenizer.pad_token, 0, 0, True, "qwen")] * (length - len(said))
    before, after = (
        [replace(token, start=0, end=0, special=True) for token in plain(text)]
        for text in (pipe.prompt_template_encode_prefix, pipe.prompt_template_encode_suffix)
    )
    return tuple(
        replace(token, index=i) for i, token in enumerate([*before, *said, *filling, *after])
    )


def _kept(pipe: Any, _: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    template = pipe.prompt_template_encode_prefix
    before = len(pipe.tokenizer(template, add_special_tokens=False).input_ids)
    return tokens[before : before + pipe.tokenizer_max_length]


FAMILY = replace(
    flux.FAMILY,
    name="longcat",
    matches=has_transformer(LongCatImageTransformer2DModel),
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    steering=lambda _: (Where(kind="joint"), None),
    further=None,
)
