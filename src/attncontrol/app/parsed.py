"""A prompt as the form shows it: words to choose, those of its parse first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from attncontrol.batch.short_forms import parse_groups
from attncontrol.prompts.syntax import nouns, tell_apart

_WORD = re.compile(r"\w[\w'-]*")


@dataclass(frozen=True)
class Parsed:
    """``subjects`` are nouns after their modifiers, "red+cat", which are chosen unless told
    otherwise; ``others`` the words besides; ``left_out`` what is no subject, and why."""

    subjects: tuple[str, ...]
    others: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        return [*self.subjects, *self.others]


def parsed(prompt: str) -> Parsed:
    """Raises WordError for a prompt in another language than English."""
    found, left_out = tell_apart(prompt)
    names = nouns(prompt) if found else ()
    subjects = tuple(
        "+".join([*(word.text for word in entity.modifiers), name])
        for entity, name in zip(found, names, strict=True)
    )
    inside = {name.casefold() for group in subjects for name in re.split(r"[+#]", group)}
    others = dict.fromkeys(word for word in _WORD.findall(prompt) if word.casefold() not in inside)
    reasons = tuple(f"{out.text} ({out.reason})" for out in left_out)
    return Parsed(subjects, tuple(others), reasons)


def groups(prompt: str, chosen: Sequence[str]) -> list[list[str]] | None:
    """Those that a loss is given: None, by the parse, if they are what the parse says. Raises
    SettingError, WordError."""
    if not chosen or list(chosen) == list(parsed(prompt).subjects):
        return None
    return parse_groups(",".join(chosen))


def words_of(prompt: str, chosen: Sequence[str]) -> list[str]:
    """Single words, whose maps are shown: those that are chosen, or the nouns and modifiers of the
    prompt. Raises WordError if it has none."""
    if not chosen:
        nouns(prompt)
    given = list(chosen) or list(parsed(prompt).subjects)
    return list(dict.fromkeys(word for group in parse_groups(",".join(given)) for word in group))
