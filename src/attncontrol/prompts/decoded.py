"""What was said, from the ids that a text encoder was given: a text, and where in it tokens are."""

import re
from collections.abc import Sequence
from typing import Any

from attncontrol.prompts.tokens import Token

_LOOSE = re.compile(r" (?=[,.;:!?)\]}'\u2019])|(?<=[(\[{]) | (?=-)|(?<=-) ")
"""Spaces that tokenizers which forget spaces put around signs."""


def decoded(tokenizer: Any, ids: Sequence[int], encoder: str) -> tuple[str, tuple[Token, ...]]:
    """The text of ids, windows one after another, and its tokens with positions from 0.

    What begins, ends and fills up a window is special and said nowhere. All vectors of a textual
    inversion are its first: ``<toy>_1`` is ``<toy>``. Where a tokenizer forgets case and spaces,
    the text is in lower case and spaced as it is usual.
    """
    added = {id_: text for text, id_ in tokenizer.get_added_vocab().items()}
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    special |= {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    text, ranges, run = "", list[tuple[int, int]](), list[int]()
    for id_ in ids:
        start = len(text)
        if id_ in special:
            ranges.append((0, 0))
            continue
        if id_ in added:
            base = re.sub(r"_\d+$", "", added[id_])
            run = []
            if ranges and base != added[id_] and text.endswith(base):
                ranges.append((start - len(base), start))
                continue
            text = f"{text} {added[id_]}".lstrip()
            ranges.append((len(text) - len(added[id_]), len(text)))
            continue
        before = tokenizer.decode(run, clean_up_tokenization_spaces=False) if run else ""
        run = [*run, id_]
        after = tokenizer.decode(run, clean_up_tokenization_spaces=False)
        text = _with(text, before, after)
        new = text[start:]
        ranges.append((len(text) - len(new.lstrip()), len(text.rstrip())))
    return _tidied(text, ranges, tokenizer.convert_ids_to_tokens(list(ids)), ids, encoder)


def _with(text: str, before: str, after: str) -> str:
    """A text that ended with ``before``, which has become ``after``; letters of several tokens are
    there with the last of these."""
    if not before:
        return f"{text} {after}" if text and after.strip() else text + after
    return text[: len(text) - len(before)] + after


def _tidied(
    text: str,
    ranges: Sequence[tuple[int, int]],
    pieces: Sequence[str],
    ids: Sequence[int],
    encoder: str,
) -> tuple[str, tuple[Token, ...]]:
    places, at = [0], 0  # of every character in the text without loose spaces
    loose = {match.start() for match in _LOOSE.finditer(text)}
    for k in range(len(text)):
        at += k not in loose
        places.append(at)
    tokens = [
        Token(
            k, id_, piece.removesuffix("</w>").removeprefix("\u2581").removeprefix("\u0120"),
            places[start], places[max(start, end)], end <= start, encoder,
        )
        for k, (id_, piece, (start, end)) in enumerate(zip(ids, pieces, ranges, strict=True))
    ]  # fmt: skip
    return "".join(c for k, c in enumerate(text) if k not in loose), tuple(tokens)
