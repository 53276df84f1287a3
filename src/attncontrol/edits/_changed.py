"""What two prompts say differently."""

from collections.abc import Sequence

from torch import Tensor

from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source
from attncontrol.edits._source import aligned
from attncontrol.prompts.spelling import places
from attncontrol.prompts.text import Text

Positions = tuple[list[int], list[int]]
"""In the text of the source and in that of the image that takes from it."""


def changed(now: Moment, source: Source, image: int) -> Positions:
    """Subjects that one of both prompts does not have or says otherwise, with all their words; the
    words that differ where no subject has any."""
    alignment = aligned(now, source, image)
    kept = alignment.kept, alignment.matrix[:, alignment.kept].any(1)
    first, second = map(_with_subjects, _both(now, source, image), (kept[1], kept[0]))
    return first, second


def named(now: Moment, source: Source, image: int, words: Sequence[str]) -> Positions:
    """Of words that are in one of both prompts at least. Raises WordError."""
    found: Positions = [], []
    told = _both(now, source, image)
    for word in words:
        having = [k for k, (text, number) in enumerate(told)
                  if places(str(text.prompts[number]), word)]  # fmt: skip
        for k in having or [1]:
            text, number = told[k]
            found[k].extend(text.span(word, number).positions)
    return found


def _both(now: Moment, source: Source, image: int) -> tuple[tuple[Text, int], tuple[Text, int]]:
    """The texts of the source and of the image, and their numbers in these."""
    return now.told(source, image), (now.text, image)


def _with_subjects(told: tuple[Text, int], same: Tensor) -> list[int]:
    text, image = told
    tokens = text.tokens(image)
    other = {token.index for token in tokens if not token.special and not same[token.index]}
    subjects = text.subjects(None)[image]
    whole = [set(subject.positions) for subject in subjects if other & set(subject.positions)]
    return sorted(set().union(*whole) if whole else other)
