"""A prompt without one of its things."""

import re
from collections.abc import Sequence
from itertools import pairwise

from attncontrol.errors import WordError
from attncontrol.prompts.language import require_english
from attncontrol.prompts.reading import read
from attncontrol.prompts.spelling import places, words_of
from attncontrol.prompts.syntax import Entity, tell_apart

_LISTED = re.compile(r"\s*(?:,|,?\s*(?:and|or|plus|&|\+))\s*", re.IGNORECASE)
"""Between things that stand side by side."""
_BESIDE = re.compile(
    r"\s+(?:with|without|next to|beside|near|in front of|behind|on top of|on|under|above|below|by"
    r"|in|inside|at|wearing|holding|carrying|riding|eating)\s+",
    re.IGNORECASE,
)
"""Between a thing and what may go without it."""
_BEFORE = re.compile(
    r"(?:\b(?:a|an|the|some|one|two|three|four|five|another|his|her|its|their|my|your|our|this"
    r"|that|these|those|several|many|few|very|quite|really|extremely|slightly)\s+)+$",
    re.IGNORECASE,
)
_OWNERS = re.compile(r"\b(?:his|her|its|their)\b", re.IGNORECASE)
_FINITE = {"VBZ", "VBP", "VBD", "MD"}
Range = tuple[int, int]


def without(prompt: str, word: str) -> str:
    """The prompt without a thing, its modifiers and what joins it to the rest: "a red cat" of "a
    red cat and a frog" without "frog".

        without("a lion with a crown, a cat and a frog", "cat")  # "a lion with a crown and a frog"

    Raises WordError if it is no thing of the prompt, or what is left would not be a prompt: things
    that stand in a sentence, or of which others are said; or if the prompt is not English.
    """
    require_english(prompt)
    subjects, _ = tell_apart(prompt)
    spans = sorted(_phrase(prompt, subject) for subject in subjects)
    at = spans.index(_phrase(prompt, _named(prompt, word, subjects)))
    if _in_sentence(prompt, spans):
        raise WordError(_unclean(prompt, word, "it stands in a sentence"))
    first = last = at
    while first and _LISTED.fullmatch(prompt, spans[first - 1][1], spans[first][0]):
        first -= 1
    while last + 1 < len(spans) and _LISTED.fullmatch(prompt, spans[last][1], spans[last + 1][0]):
        last += 1
    left, right = prompt[: spans[first][0]], prompt[spans[last][1] :]
    if at == last and not re.fullmatch(r"\s*(?:[.,;!].*)?", right, re.DOTALL):
        raise WordError(_unclean(prompt, word, f"{right.strip()!r} may be said of it"))
    joined = first and _BESIDE.fullmatch(prompt, spans[first - 1][1], spans[first][0])
    if first < last and (joined or not (first and at == first)):
        middle = _listed(prompt, spans[first : last + 1], at - first)
    elif first == last and joined:
        left, middle = prompt[: spans[at - 1][1]], ""
    else:
        raise WordError(_unclean(prompt, word, "nothing would be left that stands by itself"))
    if _OWNERS.search(prompt, spans[at][1]):
        raise WordError(_unclean(prompt, word, "others may be its own"))
    rest = left + middle + right
    return rest[0].upper() + rest[1:] if prompt[0].isupper() else rest


def require_thing(prompt: str, word: str) -> None:
    """Raises WordError for a word that names no thing of the prompt, or several."""
    _named(prompt, word, tell_apart(prompt)[0])


def _named(prompt: str, word: str, subjects: Sequence[Entity]) -> Entity:
    """The thing that a word, such as "cat", "red cat" or "cat#2", names."""
    phrase, _, number = word.partition("#")
    found = places(prompt, phrase.strip()) if phrase.strip() else []
    if number:
        found = found[int(number) - 1 : int(number)] if number.isdecimal() and int(number) else []
    if not found:
        words = ", ".join(words_of(prompt)) or "none"
        raise WordError(f"{word!r} is not in the prompt {prompt!r}; its words are: {words}")
    if len(found) > 1:
        raise WordError(f"{word!r} is {len(found)} times in {prompt!r}: say which, {word}#1")
    (start, end), named = found[0], None
    for subject in subjects:
        if start <= subject.noun.start and subject.noun.end <= end:
            named = subject
    if named is None:
        nouns = ", ".join(subject.noun.text for subject in subjects) or "none"
        raise WordError(f"{word!r} is no thing of {prompt!r}; its things are: {nouns}")
    return named


def _phrase(prompt: str, subject: Entity) -> Range:
    """With its article."""
    start, end = subject.span
    before = _BEFORE.search(prompt, 0, start)
    return (before.start() if before else start), end


def _in_sentence(prompt: str, spans: Sequence[Range]) -> bool:
    """Whether a verb says something, but for "a dog that is red", or something is said of two."""
    if any(second[0] < first[1] for first, second in pairwise(spans)):
        return True
    verbs = [token for token in read(prompt) if token.tag_ in _FINITE]
    return any(not any(a <= verb.idx < b for a, b in spans) for verb in verbs)


def _listed(prompt: str, spans: Sequence[Range], gone: int) -> str:
    """A list without one: what stands before its last one stays there."""
    between = [prompt[a[1] : b[0]] for a, b in pairwise(spans)]
    things = [prompt[slice(*span)] for k, span in enumerate(spans) if k != gone]
    joined = between[: len(things) - 2] + between[-1:]
    if len(things) == 2:
        word = joined[-1].strip(", \n\t")
        joined = [f" {word} " if word else joined[-1]]
    return things[0] + "".join(a + b for a, b in zip(joined, things[1:], strict=False))


def _unclean(prompt: str, word: str, why: str) -> str:
    return f"{word!r} cannot be left out of {prompt!r}, {why}: write the prompt without it yourself"
