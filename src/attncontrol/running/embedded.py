"""The texts of embeddings that a call is given instead of prompts: what text encoders were heard to
make, found again in them window by window."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from attncontrol.families.encoder import SEPARATOR, Encoder
from attncontrol.prompts.decoded import decoded
from attncontrol.prompts.tokens import Token
from attncontrol.running.heard import Heard, explained, rows

Reading = tuple[str, tuple[Token, ...]]
"""A text and the token positions of the embeddings."""

_TOLERANCE, _SHARE = 0.02, 0.9  # of half precision; of the positions, since ends may be copied


def texts_of(
    pipe: Any, encoders: Sequence[Encoder], states: Any, heard: Collection[Heard], images: int
) -> list[Reading | None]:
    """What every image is told by embeddings [row position width], None where that is not known:
    what was not encoded while somebody listened, or is a blend of several texts."""
    if not heard or not isinstance(states, Tensor) or states.ndim != 3:
        return [None] * images
    pieces = list(heard)
    rows_of = states.detach().double().cpu()
    found = [_read(pipe, encoders, row, pieces) for row in rows_of]
    if None in found:  # weights may move features away from those of an empty text
        pieces += [row for encoder in encoders for row in _empty(pipe, encoder, pieces)]
        found = [_read(pipe, encoders, row, pieces) for row in rows_of]
    return [found[image * len(found) // images] for image in range(images)]


def _read(
    pipe: Any, encoders: Sequence[Encoder], states: Tensor, heard: Sequence[Heard]
) -> Reading | None:
    """Of one row [position width], all of whose positions must be known."""
    first = after = channel = width = 0
    parts: list[tuple[Encoder, int, Reading]] = []
    for encoder in encoders:
        own = [row for row in heard if row.component == encoder.component]
        if encoder.component is None and not states[after:].any():
            parts.append((encoder, after, _blank(encoder, len(states) - after)))
            after = len(states)
            continue
        if not own:
            return None
        channel = channel + width if encoder.beside else 0
        first = first if encoder.beside else after
        width = next(iter(own[0].layers.values())).shape[-1]
        windows = _windows(states[first:, channel : channel + width], own)
        if not windows:
            return None
        ids = [id_ for window in windows for id_ in window.ids]
        parts.append((encoder, first, decoded(_tokenizer(pipe, encoder), ids, encoder.name)))
        after = max(after, first + len(ids))
    return _joined(parts) if after == len(states) else None


def _windows(states: Tensor, heard: Sequence[Heard]) -> list[Heard]:
    """The rows that features begin with, one after another."""
    found, at = list[Heard](), 0
    while at < len(states) and (best := _best(states[at:], heard)):
        found.append(best)
        at += len(best.ids)
    return found


def _best(states: Tensor, heard: Sequence[Heard]) -> Heard | None:
    """The row that explains most of what features begin with: by itself, and if that is as much,
    with weights of words. These multiply features (A1111, lpw, sd_embed), move them away from those
    of an empty text or of the last position, or mix them with those in which a word is masked."""
    groups: dict[tuple[int, ...], list[Heard]] = {}
    for row in heard:
        groups.setdefault(row.ids, []).append(row)
    empty = [row for row in heard if len(set(row.ids)) <= 3 and len(row.ids) > 3]
    best, most = None, (0, 0, 0.0)
    for ids, group in groups.items():
        size = len(ids)
        others = [row for row in empty if len(row.ids) == size and row.ids != ids]
        for layer in group[0].layers if size <= len(states) else ():
            own, further = (_pieces(each, layer) for each in (group, others))
            alone, _ = explained(states[:size], own, _TOLERANCE)
            last = [piece[-1:].expand_as(piece) for piece in own[:1]]
            count, rest = explained(states[:size], own + further + last, _TOLERANCE)
            if count >= _SHARE * size and (alone, count, -rest) > most:
                best, most = group[0], (alone, count, -rest)
    return best


def _pieces(group: Sequence[Heard], layer: str) -> list[Tensor]:
    return [row.layers[layer].double().cpu() for row in group if layer in row.layers]


@torch.no_grad()
def _empty(pipe: Any, encoder: Encoder, heard: Iterable[Heard]) -> list[Heard]:
    """What a text encoder makes of an empty text of every length that was heard."""
    module: Any = getattr(pipe, str(encoder.component), None)
    if encoder.component is None or not type(module).__name__.startswith(("CLIP", "T5")):
        return []
    tokenizer = _tokenizer(pipe, encoder)
    sizes = {len(row.ids) for row in heard if row.component == encoder.component}
    found: list[Heard] = []
    for size in sizes:
        ids = tokenizer(
            "", padding="max_length", max_length=size, truncation=True, return_tensors="pt"
        ).input_ids.to(module.device)
        output = module(ids, output_hidden_states=True)
        found += rows(encoder.component, module, ids, output)
    return found


def _tokenizer(pipe: Any, encoder: Encoder) -> Any:
    return getattr(pipe, str(encoder.component).replace("text_encoder", "tokenizer"))


def _blank(encoder: Encoder, length: int) -> Reading:
    return "", tuple(Token(k, 0, "", 0, 0, True, encoder.name) for k in range(length))


def _joined(parts: Sequence[tuple[Encoder, int, Reading]]) -> Reading:
    """The texts that encoders read one after another, those that differ in case once."""
    texts: dict[str, str] = {}
    for _, _, (text, tokens) in parts:
        if text or any(not token.special for token in tokens):
            texts[text.casefold()] = text
    starts, at = {"": 0}, 0
    for key, text in texts.items():
        starts[key], at = at, at + len(text) + len(SEPARATOR)
    found, before = list[Token](), None
    for encoder, first, (text, tokens) in parts:
        key = text.casefold()
        if not (encoder.beside and key == before):
            found += [_moved(token, first, starts[key]) for token in tokens]
        before = key
    return SEPARATOR.join(texts.values()), tuple(found)


def _moved(token: Token, first: int, start: int) -> Token:
    return Token(
        token.index + first, token.id, token.text, token.start + start, token.end + start,
        token.special, token.encoder,
    )  # fmt: skip
