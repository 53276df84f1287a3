"""How text becomes the positions that a denoiser reads: its encoders, one after another; and how a
call of a pipeline takes it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attncontrol.errors import CallError
from attncontrol.prompts.tokens import Token

Arguments = Mapping[str, Any]
"""The named arguments of one call of the denoiser, or of ``encode_prompt``."""

NUMBER = "number of the prompt"
"""Among these which of the prompts of a call is read, where that is known."""

SEPARATOR = " | "
"""Between the texts of encoders that read different ones."""


def _all(_: Any, __: Arguments, tokens: tuple[Token, ...]) -> Sequence[Token]:
    return tokens


def _one_row(tokens: Sequence[Token]) -> Sequence[Sequence[Token]]:
    return (tokens,)


@dataclass(frozen=True)
class Encoder:
    """One text encoder, whose positions the denoiser reads.

    ``name`` is that of its tokens. ``read(pipe, prompt, encoding)`` is all that it is given, from
    position 0, padding included that is read; ``kept(pipe, encoding, tokens)`` those of which the
    denoiser reads something. ``component`` of the pipeline runs it: the ids that reach that are
    compared ("transformer" is a denoiser that embeds its ``input_ids`` itself); None if nothing
    does. ``prompt`` is the argument of the pipeline that holds its text. The features of one that
    is ``beside`` lie beside those of the encoder before it, position by position. ``rows(tokens)``
    are those of each row of ids where one text is read in several.
    """

    name: str
    component: str | None
    read: Callable[[Any, str, Arguments], tuple[Token, ...]]
    prompt: str = "prompt"
    kept: Callable[[Any, Arguments, tuple[Token, ...]], Sequence[Token]] = _all
    beside: bool = False
    rows: Callable[[Sequence[Token]], Sequence[Sequence[Token]]] = _one_row


Texts = Mapping[str, str]
"""Argument of the pipeline, such as "prompt_2", to its text; those without one have "prompt"'s."""


def text_of(texts: Texts, encoder: Encoder) -> str:
    return texts.get(encoder.prompt) or texts["prompt"]


def joined(texts: Texts, encoders: Sequence[Encoder]) -> str:
    """The text in which words are looked up: that which the encoders read, or theirs one after
    another where they read different ones."""
    return SEPARATOR.join(dict.fromkeys(text_of(texts, encoder) for encoder in encoders))


def positions(
    pipe: Any, encoders: Sequence[Encoder], texts: Texts, encoding: Arguments
) -> tuple[Token, ...]:
    """What the denoiser reads, its characters counted in ``joined``. Encoders beside each other
    that read different texts both have a token at their positions."""
    starts, at = {}, 0
    for text in dict.fromkeys(text_of(texts, encoder) for encoder in encoders):
        starts[text], at = at, at + len(text) + len(SEPARATOR)
    found: list[Token] = []
    first = after = 0
    before = ""
    for encoder in encoders:
        text = text_of(texts, encoder)
        if encoder.beside and text == before:
            continue
        first = first if encoder.beside else after
        tokens = encoder.kept(pipe, encoding, encoder.read(pipe, text, encoding))
        moved = [_moved(token, first + i, starts[text]) for i, token in enumerate(tokens)]
        found += moved
        after, before = max(after, first + len(moved)), text
    return tuple(found)


def _moved(token: Token, index: int, start: int) -> Token:
    return replace(token, index=index, start=token.start + start, end=token.end + start)


def reads_together(pipe: Any) -> bool:
    """Whether ``encode_prompt`` reads all texts of a run at once, which is of one prompt then."""
    method = getattr(type(pipe), "encode_prompt", None)
    return method is not None and "prompts" in inspect.signature(method).parameters


def as_called(pipe: Any, texts: Sequence[str]) -> str | list[str]:
    """Texts as the call of a pipeline takes them. Raises CallError for several where it makes
    pictures of one alone."""
    if not reads_together(pipe):
        return list(texts)
    if len(texts) > 1:
        raise CallError(
            f"a call of {type(pipe).__name__} makes pictures of one prompt, not of {len(texts)}: "
            "give it one at a time, to what has a batch=... with batch=1"
        )
    return texts[0]
