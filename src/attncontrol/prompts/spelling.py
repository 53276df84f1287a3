"""Where a phrase stands in a text, in any script and normal form."""

import re
import unicodedata
from collections.abc import Callable, Iterator

_NO_SPACES = (
    "CJK", "HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR",
    "TIBETAN", "YI",
)  # fmt: skip
"""Scripts that put no spaces between words or what belongs to them, as the names of their
characters begin."""

_SIGNS = str.maketrans("\u2018\u2019\u02bc\u2032\u2010\u2011\u2013", "''''---")
_JOINER, _SKIN = "\u200d", range(0x1F3FB, 0x1F400)


def places(text: str, phrase: str) -> list[tuple[int, int]]:
    """The ranges of all occurrences of a phrase: whole words, whatever their case, normal form
    (composed or decomposed accents, full width), apostrophes and amount of space.

    In scripts without spaces every occurrence of the characters counts. Turkish dots are looked at
    first, and left out if nothing is found with them.
    """
    for fold in (_fold, _fold_dots):
        folded, starts = _with_places(text, fold)
        pattern = r"\s+".join(re.escape(_folded(part, fold)) for part in phrase.split())
        found = [
            (starts[match.start()], starts[match.end()])
            for match in re.finditer(pattern, folded)
            if _is_edge(folded, match.start())
            and _is_edge(folded, match.end())
            # not inside what one character of the text folds to
            and starts[match.start()] != starts[match.start() - 1 if match.start() else -1]
            and starts[match.end()] != starts[match.end() - 1]
        ]
        if found:
            return found
    return []


def words_of(text: str) -> list[str]:
    """The words of a text, for messages."""
    return list(dict.fromkeys(re.findall(r"\w[\w'\u2019-]*", text)))


def _fold(cluster: str) -> str:
    folded = unicodedata.normalize("NFKC", cluster.translate(_SIGNS)).casefold()
    return unicodedata.normalize("NFKC", folded).replace("i\u0307", "i")


def _fold_dots(cluster: str) -> str:
    return _fold(cluster).replace("\u0131", "i")


def _folded(text: str, fold: Callable[[str], str]) -> str:
    return "".join(map(fold, _clusters(text)))


def _with_places(text: str, fold: Callable[[str], str]) -> tuple[str, list[int]]:
    """The folded text, and where in the text each of its characters begins; last, its end."""
    folded, starts, at = "", list[int](), 0
    for cluster in _clusters(text):
        folded += fold(cluster)
        starts += [at] * (len(folded) - len(starts))
        at += len(cluster)
    return folded, [*starts, at]


def _clusters(text: str) -> Iterator[str]:
    """Characters with the marks after them."""
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or not _is_mark(text[i]):
            yield text[start:i]
            start = i


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _is_edge(text: str, at: int) -> bool:
    """Whether a word or sign may begin or end here."""
    if at in (0, len(text)):
        return True
    before, after = text[at - 1], text[at]
    if _is_mark(after) or _JOINER in (before, after) or ord(after) in _SKIN:
        return False
    inside = all(_is_mark(char) or re.match(r"\w", char) for char in (before, after))
    return not inside or any(map(_stands_alone, (before, after)))


def _stands_alone(char: str) -> bool:
    return unicodedata.name(char, "").startswith(_NO_SPACES)
