"""What the words of a prompt are: nouns with their modifiers, from a spaCy parse. spaCy is imported
on the first call.

The rules are those that SynGen describes (Rassin et al. 2023, arXiv 2306.08877), for the label
schemes of both spaCy's English pipelines (ClearNLP) and Universal Dependencies: adjectives,
compounds and participles before a noun with what modifies or joins them, predicates ("the apple is
red") and relative clauses ("a dog that is red"). Differences: every clause is read, the noun is
explicit, nothing is kept between prompts, degree adverbs ("very") are no modifiers, and nouns that
the tagger of a small pipeline takes for verbs ("a white rose") are repaired.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attncontrol.errors import WordError
from attncontrol.prompts.grammar import chain, is_head, modifiers, predications
from attncontrol.prompts.language import require_english
from attncontrol.prompts.lexicon import DEGREES, PICTURE_WORDS, PLACES
from attncontrol.prompts.parser import parser
from attncontrol.prompts.repairs import mistaken, paints


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
    """The nouns of a prompt in order, each with its modifiers. Empty if there is none. Raises
    WordError for a prompt in another language than English."""
    require_english(prompt)
    doc = parser()(prompt)
    painted = {token.i + 1: token.nbor(-1) for token in doc if paints(token)}
    described = _described(doc, painted)
    entities = []
    for index, words in described.items():
        noun = _word(doc[index])
        own = {
            _word(word)
            for word in words
            if painted.get(word.i, doc[index]) == doc[index] and word.i + 1 not in painted
            if word.lower_ not in DEGREES and word.pos_ not in ("DET", "NUM", "PRON", "PUNCT")
        }
        entities.append(Entity(noun, tuple(sorted(own - {noun}, key=lambda word: word.start))))
    entities.sort(key=lambda entity: entity.noun.start)
    return tuple({entity.noun: entity for entity in entities}.values())


def _described(doc: Any, painted: Mapping[int, Any]) -> dict[int, list[Any]]:
    """Positions of nouns, and everything that could modify them; ``painted`` maps the position of a
    colour to the noun that is painted."""
    repaired = {token.i: words for token in doc if (words := mistaken(token)) is not None}
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


def subjects_of(prompt: str) -> tuple[Entity, ...]:
    """The nouns that a picture can show: without words for pictures and places ("a photo of", "to
    the left of").

    Raises WordError if there is no noun.
    """
    entities = analyse(prompt)
    if not entities:
        raise WordError(
            f"no noun was found in the prompt {prompt!r}; "
            "name the words yourself: words=['...'] or --words ..."
        )
    hidden = PICTURE_WORDS | PLACES
    return tuple(each for each in entities if each.noun.text.lower() not in hidden) or entities


def nouns(prompt: str) -> tuple[str, ...]:
    """The nouns of ``subjects_of`` in order; a repeated noun is numbered: "cat#1", "cat#2". Raises
    WordError if there is none."""
    words = [entity.noun.text.lower() for entity in analyse(prompt)]
    total, seen = Counter(words), Counter[str]()
    named = []
    for entity in subjects_of(prompt):
        word = entity.noun.text
        seen[word.lower()] += 1
        named.append(f"{word}#{seen[word.lower()]}" if total[word.lower()] > 1 else word)
    return tuple(named)


def _word(token: Any) -> Word:
    """The token with what hyphens join to it."""
    first = last = token
    while first.i > 0 and _joined(first.nbor(-1), first):
        first = first.nbor(-1)
    while last.i + 1 < len(last.doc) and _joined(last, last.nbor(1)):
        last = last.nbor(1)
    start, end = first.idx, last.idx + len(last)
    return Word(token.doc.text[start:end], start, end)


def _joined(left: Any, right: Any) -> bool:
    return not left.whitespace_ and "-" in (left.text, right.text)
