"""Where in a text the tokens of a tokenizer are that reports no offsets but keeps all characters in
its pieces, as sentencepiece does (Kolors)."""

import re
from collections.abc import Sequence
from typing import Any

from attncontrol.prompts.origin import Origin, aligned, source

_SPACE = "\u2581"
_BYTE = re.compile("<0x([0-9A-F]{2})>")

Range = tuple[int, int]


def keeps_characters(tokenizer: Any) -> bool:
    """Whether its pieces are those of sentencepiece, one after another the text with "\u2581" for
    spaces."""
    return any(
        hasattr(part, "sp_model") for part in (tokenizer, getattr(tokenizer, "tokenizer", 0))
    )


def ranges(
    tokenizer: Any, text: str, ids: Sequence[int], mask: Sequence[int]
) -> list[Range] | None:
    """The characters of a text that each of the ``ids`` comes from, which the tokenizer made of it,
    empty for padding (``mask`` 0) and special tokens; None where they are not those of the text."""
    whole, content = (tokenizer(text, add_special_tokens=s)["input_ids"] for s in (True, False))
    starts = (k for k in range(len(whole) + 1) if whole[k : k + len(content)] == content)
    before, read = next(starts, None), [k for k, shown in enumerate(mask) if shown]
    if before is None:
        return None
    places = read[before : before + len(content)]
    if [ids[k] for k in places] != content[: len(places)]:
        return None
    pieces = tokenizer.convert_ids_to_tokens([ids[k] for k in places])
    found: list[Range] = [(0, 0)] * len(ids)
    for place, own in zip(places, _of_pieces(text, pieces), strict=True):
        found[place] = own
    return found


def _of_pieces(text: str, pieces: Sequence[str]) -> list[Range]:
    written, ends = "", list[Range]()
    for group in _groups(pieces):
        start, written = len(written), written + _written(group)
        ends += [(start, len(written))] * len(group)
    origin: Origin = aligned(text, written)
    return [source(origin, start, end) for start, end in ends]


def _groups(pieces: Sequence[str]) -> list[list[str]]:
    """Bytes that follow each other are one piece."""
    groups: list[list[str]] = []
    for piece in pieces:
        if _BYTE.fullmatch(piece) and groups and _BYTE.fullmatch(groups[-1][0]):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _written(group: Sequence[str]) -> str:
    if found := [match[1] for piece in group if (match := _BYTE.fullmatch(piece))]:
        return bytes.fromhex("".join(found)).decode(errors="replace")
    return group[0].replace(_SPACE, " ")
