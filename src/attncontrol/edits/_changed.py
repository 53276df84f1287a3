"""What two prompts say differently."""

from torch import Tensor

from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source
from attncontrol.attention.words import Positions, both
from attncontrol.edits._source import aligned
from attncontrol.prompts.text import Text


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


def _compared(now: Moment, source: Source, image: int) -> tuple[Positions, Positions]:
    """Of the source and of the image: positions of what is changed, and of what is not."""
    alignment = aligned(now, source, image)
    alike = alignment.matrix[:, alignment.kept].any(1), alignment.kept
    first, second = map(_with_subjects, both(now, source, image), alike)
    return first, second


def _with_subjects(told: tuple[Text, int], alike: Tensor) -> Positions:
    text, image = told
    tokens = text.tokens(image)
    other = {token.index for token in tokens if not token.special and not alike[token.index]}
    subjects = [set(subject.positions) for subject in text.subjects(None)[image]]
    whole = set[int]().union(*(each for each in subjects if other & each))
    rest = set[int]().union(*(each for each in subjects if not other & each))
    return (sorted(whole), sorted(rest - whole)) if whole or not other else (sorted(other), [])
