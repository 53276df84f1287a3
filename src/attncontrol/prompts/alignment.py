"""Which tokens of two prompts say the same, for edits that take attention from one to the other.

The words of the prompts are aligned first: those of a longest common sequence are kept, words
between the same kept ones are swapped for each other, and what is left is new or gone. Tokens
follow their words, in the text of every encoder by itself.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from attncontrol.prompts.tokens import Token


@dataclass(frozen=True, eq=False)
class Alignment:
    """``matrix`` [source target]: the share of a source token's attention that goes to a target
    token. ``kept`` and ``swapped`` [target] mark tokens of kept words and of words that take the
    place of others; both are False where a word is new.

    A kept token takes all of its own; n tokens that take the place of m others take a share of 1/n
    of all of these, as in prompt-to-prompt.
    """

    matrix: Tensor
    kept: Tensor
    swapped: Tensor

    @property
    def is_identity(self) -> bool:
        """Whether every token has its own position in both."""
        rows, columns = self.matrix.shape
        return rows == columns and bool((self.matrix == torch.eye(rows)).all())


@functools.lru_cache(maxsize=64)
def align(
    source: tuple[Token, ...], target: tuple[Token, ...], before: str, after: str
) -> Alignment:
    """Of two text sequences, which are those of the prompts ``before`` and ``after``."""
    matrix = torch.zeros(len(source), len(target))
    kept, swapped = torch.zeros(2, len(target), dtype=torch.bool)
    for encoder in dict.fromkeys(token.encoder for token in target):
        those, these = ([t for t in each if t.encoder == encoder] for each in (source, target))
        for there, here in _special(those, these):
            matrix[there, here] = 1.0
            kept[here] = True
        for sources, targets, same in _words(those, these, before, after):
            for place, here in enumerate(targets):
                if len(sources) == len(targets):
                    matrix[sources[place], here] = 1.0
                else:
                    matrix[sources, here] = 1 / len(targets)
                (kept if same else swapped)[here] = True
    return Alignment(matrix, kept, swapped)


def _special(source: Sequence[Token], target: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """What begins the text and what ends it; padding has its position in both."""
    begin, end = zip(*(_bounds(each) for each in (source, target)), strict=True)
    for k in range(min(begin)):
        yield source[k].index, target[k].index
    if end[0] < len(source) and end[1] < len(target):
        yield source[end[0]].index, target[end[1]].index
    for k in range(max(end) + 1, min(len(source), len(target))):
        yield source[k].index, target[k].index


def _bounds(tokens: Sequence[Token]) -> tuple[int, int]:
    """The places of the first token of the prompt and of the one after its last."""
    own = [k for k, token in enumerate(tokens) if not token.special]
    return (own[0], own[-1] + 1) if own else (1, 1)


def _words(
    source: Sequence[Token], target: Sequence[Token], before: str, after: str
) -> Iterator[tuple[list[int], list[int], bool]]:
    """Positions of words that belong together, and whether they are the same word."""
    words = [list(re.finditer(r"\w+|[^\w\s]", prompt)) for prompt in (before, after)]
    texts = [[word.group().casefold() for word in of_prompt] for of_prompt in words]
    for what, a, b, c, d in SequenceMatcher(a=texts[0], b=texts[1], autojunk=False).get_opcodes():
        whole = (
            [(a, b, c, d)]
            if b - a != d - c
            else zip(
                range(a, b), range(a + 1, b + 1), range(c, d), range(c + 1, d + 1), strict=True
            )
        )
        for i, j, k, m in whole if what in ("equal", "replace") else ():
            those, these = _positions(source, words[0][i:j]), _positions(target, words[1][k:m])
            if those and these:
                yield those, these, what == "equal"


def _positions(tokens: Sequence[Token], words: Sequence[re.Match[str]]) -> list[int]:
    return [
        token.index
        for token in tokens
        if any(token.start < word.end() and word.start() < token.end for word in words)
    ]
