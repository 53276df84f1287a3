"""What the words of a prompt are: nouns with their modifiers, from a spaCy parse. spaCy is imported
on the first call.

The rules are those that SynGen describes (Rassin et al. 2023, arXiv 2306.08877), for the label
schemes of both spaCy's English pipelines (ClearNLP) and Universal Dependencies: adjectives,
compounds and participles before a noun with what modifies or joins them, predicates ("the apple is
red") and relative clauses ("a dog that is red"). Differences: every clause is read, the noun is
explicit, nothing is kept between prompts, degree adverbs ("very") are no modifiers, and nouns that
the tagger of a small pipeline takes for verbs ("a white rose") are repaired. Prompts in another
language are read by a spaCy pipeline of it, if one is installed, with the rules of ``foreign``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attncontrol.errors import WordError
from attncontrol.prompts import foreign
from attncontrol.prompts.grammar import chain, is_head, modifiers, predications
from attncontrol.prompts.language import other_language
from attncontrol.prompts.lexicon import CLOSED, DEGREES
from attncontrol.prompts.reading import read
from attncontrol.prompts.repairs import mistaken, paints
from attncontrol.prompts.showing import why_left_out
from attncontrol.prompts.tags import Kept, LeftOut, without_tags


@dataclass(frozen=True)
class Word:
    """A word of the prompt, hyphens included, and its characters ``start:end``."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Entity:
    """A noun with its modifiers in the order of the prompt."""

    noun: Word
    modifiers: tuple[Word, ...] = ()

    @property
    def span(self) -> tuple[int, int]:
        """First and last character (exclusive) of noun and modifiers."""
        words = (self.noun, *self.modifiers)
        return min(word.start for word in words), max(word.end for word in words)


def analyse(prompt: str) -> tuple[Entity, ...]:
    """The nouns of a prompt in order, each with its modifiers, those of tags as well. Empty if
    there is none. Raises WordError for a prompt in another language than English of which no spaCy
    pipeline is installed."""
    whole = Kept(prompt, tuple(range(len(prompt))), ())
    return tuple(entity for _, entity in _entities(whole))


def _entities(kept: Kept) -> list[tuple[Any, Entity]]:
    """The nouns of what is left of a prompt, as tokens and as words of the whole prompt."""
    if language := other_language(kept.text):
        doc, painted = foreign.parsed(kept.text, language), dict[int, Any]()
        described = foreign.described(doc)
    else:
        doc = read(kept.text)
        painted = {token.i + 1: token.nbor(-1) for token in doc if paints(token)}
        described = _described(doc, painted)
    entities: dict[Word, tuple[Any, Entity]] = {}
    for index, words in sorted(described.items()):
        noun = _word(doc[index], kept)
        own = {
            _word(word, kept)
            for word in words
            if painted.get(word.i, doc[index]) == doc[index] and word.i + 1 not in painted
            if word.lower_ not in DEGREES and word.pos_ not in ("DET", "NUM", "PRON", "PUNCT")
        }
        modifiers = tuple(sorted(own - {noun}, key=lambda word: word.start))
        entities[noun] = doc[index], Entity(noun, modifiers)
    inside = {word for _, entity in entities.values() for word in entity.modifiers}
    return [each for noun, each in entities.items() if not ("-" in noun.text and noun in inside)]


def _described(doc: Any, painted: Mapping[int, Any]) -> dict[int, list[Any]]:
    """Positions of nouns, and everything that could modify them; ``painted`` maps the position of a
    colour to the noun that is painted."""
    repaired = {
        token.i: words
        for token in doc
        if token.lower_ not in CLOSED and (words := mistaken(token)) is not None
    }
    taken = {word.i for words in repaired.values() for word in words} | painted.keys()
    described: dict[int, list[Any]] = {}
    for token in doc:
        if token.i in repaired:
            described[token.i] = list(repaired[token.i])
        elif token.i not in taken and is_head(token):
            described[token.i] = list(modifiers(token))
    for index, noun in painted.items():
        described[noun.i] = [*described.get(noun.i, ()), doc[index], *chain(doc[index])]
    for token in doc:
        for noun, predicate in predications(token):
            if noun.i in described and predicate.i not in described:
                described[noun.i] += [predicate, *chain(predicate)]
    return described


def tell_apart(prompt: str) -> tuple[tuple[Entity, ...], tuple[LeftOut, ...]]:
    """The nouns that a picture can show, and what is none of them, with the reason: tags, words for
    the picture itself ("a photo of"), for places in it ("to the left of") and for amounts ("a pair
    of"), bare colours ("a man in black"), and nouns that cannot be seen ("beauty"). In other
    languages than English tags alone are left out."""
    kept = without_tags(prompt)
    subjects: list[Entity] = []
    left_out = list(kept.left_out)
    for token, entity in _entities(kept):
        english = token.lang_ == "en"
        reason = why_left_out(token, entity.modifiers) if english else None
        if reason is None:
            subjects.append(entity)
        else:
            noun = entity.noun
            left_out.append(LeftOut(noun.text, noun.start, noun.end, reason))
    return tuple(subjects), tuple(sorted(left_out, key=lambda each: each.start))


def subjects_of(prompt: str) -> tuple[Entity, ...]:
    """The nouns that a picture can show; see ``tell_apart``.

    Raises WordError if there is none.
    """
    subjects, left_out = tell_apart(prompt)
    if subjects:
        return subjects
    found = "no subject" if left_out else "no noun"
    besides = "".join(f", {each.text!r} is left out: {each.reason}" for each in left_out)
    raise WordError(
        f"{found} was found in the prompt {prompt!r}{besides}; "
        "name the words yourself: words=['...'] or --words ..."
    )


def nouns(prompt: str) -> tuple[str, ...]:
    """The nouns of ``subjects_of`` in order; one that the prompt has more than once is numbered by
    its occurrences: "cat#1", "cat#2". Raises WordError if there is none."""
    named = []
    for entity in subjects_of(prompt):
        word = entity.noun
        pattern = rf"(?<!\w){re.escape(word.text)}(?!\w)"
        starts = [match.start() for match in re.finditer(pattern, prompt, re.IGNORECASE)]
        named.append(
            f"{word.text}#{starts.index(word.start) + 1}" if len(starts) > 1 else word.text
        )
    return tuple(named)


def _word(token: Any, kept: Kept) -> Word:
    """The token with what hyphens join to it."""
    first = last = token
    while first.i > 0 and _joined(first.nbor(-1), first):
        first = first.nbor(-1)
    while last.i + 1 < len(last.doc) and _joined(last, last.nbor(1)):
        last = last.nbor(1)
    start, end = first.idx, last.idx + len(last)
    places = kept.places[start:end]
    return Word(kept.text[start:end], places[0], places[-1] + 1)


def _joined(left: Any, right: Any) -> bool:
    return not left.whitespace_ and "-" in (left.text, right.text)
