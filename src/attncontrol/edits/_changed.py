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
    (first, _), (second, _) = _compared(now, source, image)
    return first, second


def shared(now: Moment, source: Source, image: int) -> list[int]:
    """Subjects that both prompts have and say alike, in that of the source; none where no subject
    is changed."""
    (_, first), (_, second) = _compared(now, source, image)
    return first if second else []


def has_new_things(now: Moment, source: Source, image: int) -> bool:
    """Whether the prompt of an image has a noun that that of its source has not."""
    kept, subjects = aligned(now, source, image).kept, now.text.subjects(None)[image]
    return any(not kept[list(subject.noun.positions)].any() for subject in subjects)


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


def _compared(now: Moment, source: Source, image: int) -> tuple[Positions, Positions]:
    """Of the source and of the image: positions of what is changed, and of what is not."""
    alignment = aligned(now, source, image)
    alike = alignment.matrix[:, alignment.kept].any(1), alignment.kept
    first, second = map(_with_subjects, _both(now, source, image), alike)
    return first, second


def _with_subjects(told: tuple[Text, int], alike: Tensor) -> Positions:
    text, image = told
    tokens = text.tokens(image)
    other = {token.index for token in tokens if not token.special and not alike[token.index]}
    subjects = [set(subject.positions) for subject in text.subjects(None)[image]]
    whole = set[int]().union(*(each for each in subjects if other & each))
    rest = set[int]().union(*(each for each in subjects if not other & each))
    return (sorted(whole), sorted(rest - whole)) if whole or not other else (sorted(other), [])
