"""Words that edits name, in the prompts of images and of their sources."""

from collections.abc import Sequence
from typing import Any

from attncontrol.attention.edit import Edit
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source
from attncontrol.prompts.spelling import places
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Span

Positions = tuple[list[int], list[int]]
"""In the text of the source and in that of the image that takes from it."""


def both(now: Moment, source: Source, image: int) -> tuple[tuple[Text, int], tuple[Text, int]]:
    """The texts of the source and of the image, and their numbers in these."""
    return now.told(source, image), (now.text, image)


def named(now: Moment, source: Source, image: int, words: Sequence[str]) -> Positions:
    """Of words that are in one of both prompts at least. Raises WordError."""
    found: Positions = [], []
    told = both(now, source, image)
    for word in words:
        having = [k for k, (text, number) in enumerate(told)
                  if places(str(text.prompts[number]), word)]  # fmt: skip
        for k in having or [1]:
            text, number = told[k]
            found[k].extend(text.span(word, number).positions)
    return found


def require_words(edit: Edit, now: Moment) -> None:
    """Raises WordError for words of an edit that the prompts of a run do not have."""
    chosen = getattr(edit, "images", None)
    for image in now.images if chosen is None else set(chosen) & set(now.images):
        source = edit.source
        if source is not None and now.source_of(source, image) == image:
            continue
        for word in (word for name in edit.own_words for word in _listed(getattr(edit, name))):
            now.span(word, image)
        if source is not None:
            for name in edit.either_words:
                named(now, source, image, _listed(getattr(edit, name)))


def _listed(words: Any) -> list[Any]:
    return [words] if isinstance(words, str | int | Span) else list(words or ())
