"""What two prompts say differently."""

from collections.abc import Sequence

from torch import Tensor

from attncontrol.attention.moment import Moment
from attncontrol.edits._source import aligned
from attncontrol.prompts.spelling import places

Positions = tuple[list[int], list[int]]
"""In the text of the source and in that of the image that takes from it."""


def changed(now: Moment, source: int, image: int) -> Positions:
    """Subjects that one of both prompts does not have or says otherwise, with all their words; the
    words that differ where no subject has any."""
    alignment = aligned(now, source, image)
    kept = alignment.kept, alignment.matrix[:, alignment.kept].any(1)
    both = (source, kept[1]), (image, kept[0])
    first, second = (_with_subjects(now, each, same) for each, same in both)
    return first, second


def named(now: Moment, source: int, image: int, words: Sequence[str]) -> Positions:
    """Of words that are in one of both prompts at least. Raises WordError."""
    found: Positions = [], []
    for word in words:
        having = [e for e in (source, image) if places(str(now.text.prompts[e]), word)]
        for each in having or [image]:
            found[each == image].extend(now.span(word, each).positions)
    return found


def _with_subjects(now: Moment, image: int, same: Tensor) -> list[int]:
    tokens = now.text.tokens(image)
    other = {token.index for token in tokens if not token.special and not same[token.index]}
    subjects = now.text.subjects(None)[image]
    whole = [set(subject.positions) for subject in subjects if other & set(subject.positions)]
    return sorted(set().union(*whole) if whole else other)
