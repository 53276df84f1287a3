"""Which words of a parse are nouns, and what modifies them: the rules of ``syntax``, on the tokens
of spaCy."""

from collections.abc import Iterator
from typing import Any

from attncontrol.prompts.lexicon import CLOSED, COLOR_WORDS, COPULAS
from attncontrol.prompts.repairs import (
    BEFORE,
    NAMED,
    acts,
    continues,
    is_action,
    is_listed,
    listed_before,
)

_INSIDE = BEFORE | {"advmod", "conj"}  # of a modifier
_PREDICATES = {"acomp", "attr", "oprd", "xcomp"}
_SUBJECTS = {"nsubj", "nsubjpass", "nsubj:pass"}
_RELATIVE = {"relcl", "acl:relcl"}
_NOUNS = ("NOUN", "PROPN")


def is_head(token: Any) -> bool:
    """A noun that does not stand before another one as its modifier."""
    if not any(map(str.isalnum, token.text)):  # "#", which the tagger takes for one
        return False
    named = token.lower_ in COLOR_WORDS and token.dep_ in _PREDICATES
    if token.pos_ not in _NOUNS or is_action(token) or named:
        return False
    if token.lower_ in CLOSED or _acts_as_verb(token):
        return False
    if acts(token) or is_listed(token):
        return True
    if any(continues(child) for child in token.rights):
        return False
    if _hyphened(token) or _joins_adjective(token) or _shades(token):
        return False
    before = token.dep_ in BEFORE and token.i < token.head.i and token.head.pos_ in _NOUNS
    return not before or _parted(token)


def _parted(token: Any) -> bool:
    """ "park" of "in a park, autumn"."""
    comma = token.i + 1 < len(token.doc) and token.nbor(1).text == ","
    return comma and token.pos_ in _NOUNS and token.lower_ not in NAMED


def _hyphened(token: Any) -> bool:
    """ "hand" of "hand-painted"."""
    return (
        not token.whitespace_
        and token.i + 1 < len(token.doc)
        and token.nbor(1).text == "-"
        and token.head.pos_ in ("VERB", "ADJ")
    )


def _acts_as_verb(token: Any) -> bool:
    """ "rock" of "a man is rock climbing"."""
    between = 0 < token.i < len(token.doc) - 1
    if not between or token.tag_ != "NN" or token.nbor(1).tag_ != "VBG":
        return False
    return token.nbor(-1).lower_ in ("is", "are", "was", "were")


def _joins_adjective(token: Any) -> bool:
    """ "spiky" of "that is tiny and spiky", "silver" of "a golden fish and silver shells"."""
    bare = token.head.dep_ == "acomp" and not any(token.children)
    return token.dep_ == "conj" and (bare or is_listed(token.head))


def _shades(token: Any) -> bool:
    """ "lemon" of "a lemon yellow scooter"."""
    head = token.head
    next_to = token.dep_ == "npadvmod" and token.i + 1 == head.i
    return next_to and head.dep_ == "amod" and head.pos_ == "ADJ"


def modifiers(noun: Any) -> Iterator[Any]:
    """What stands before a noun, and what modifies or joins that."""
    shared = listed_before(noun)
    before = [child for child in noun.lefts if child not in shared]
    if is_listed(noun):
        before += listed_before(noun.head)
    if acts(noun):
        before += [child for child in noun.head.lefts if child.i < noun.i]
    if continues(noun):
        yield noun.head
        before += noun.head.lefts
    if noun.dep_ == "conj" and noun.head.pos_ == "ADJ" and not _has_article(noun):
        first = _first_joined(noun.head)
        yield first
        yield from (word for word in chain(first) if word.i < noun.i)
    if noun.dep_ in ("dobj", "obj") and _verb_modifies(noun):
        yield noun.head
    for child in before:
        if _juggles(child) or _parted(child):
            continue
        if is_listed(child):
            yield from (joined for joined in child.rights if joined.dep_ == "conj")
        elif child.dep_ in BEFORE and not any(part.dep_ == "case" for part in child.children):
            yield child
            yield from chain(child)


def _first_joined(token: Any) -> Any:
    """ "red" of "red, white and green parrot", read as four that are joined."""
    while token.dep_ == "conj" and token.head.pos_ == "ADJ":
        token = token.head
    return token


def _verb_modifies(noun: Any) -> bool:
    """ "spotted mushrooms", read as a sentence; "with glowing green crystals"."""
    verb = noun.head
    begins = verb.tag_ in ("VBD", "VBN") and verb.i == noun.i - 1 and not any(verb.lefts)
    follows = verb.dep_ == "pcomp" and verb.head.lower_ == "with" and not _has_article(noun)
    return begins or follows


def _juggles(token: Any) -> bool:
    """ "juggling" of "a clown juggling red balls", "feeding" of "on a park bench feeding birds"."""
    left = token.nbor(-1) if token.i else None
    behind = left is not None and left.pos_ == "NOUN" and left.head != token.head
    return token.tag_ == "VBG" and (
        any(child.dep_ == "npadvmod" and child.whitespace_ for child in token.lefts)
        or (behind and is_head(left))
    )


def chain(token: Any) -> Iterator[Any]:
    """What modifies or joins a modifier, and so on; a joined noun begins another entity."""
    for child in token.children:
        another = child.pos_ not in ("ADJ", "VERB", *_NOUNS) or _has_article(child)
        if child.dep_ in _INSIDE and not (child.dep_ == "conj" and another):
            yield child
            yield from chain(child)


def _has_article(token: Any) -> bool:
    return any(child.dep_ == "det" for child in token.lefts)


def predications(token: Any) -> Iterator[tuple[Any, Any]]:
    """(noun, adjective) of a clause whose verb, or in UD whose predicate, is ``token``."""
    said = [predicate for predicate in _predicates(token) if _describes(predicate)]
    if not said:
        return
    subjects = [child for child in token.children if child.dep_ in _SUBJECTS]
    relative = token.dep_ in _RELATIVE
    if (relative or token.dep_ == "acl") and not any(s.pos_ in _NOUNS for s in subjects):
        subjects = [token.head]  # but "whose tail is"
    for subject in subjects:
        joined = [] if relative else [c for c in subject.children if c.dep_ == "conj"]
        yield from ((noun, predicate) for noun in (subject, *joined) for predicate in said)


def _predicates(token: Any) -> list[Any]:
    """What a clause says of its subject."""
    children = list(token.children)
    labels = {child.dep_ for child in children}
    if labels & {"cop", "auxpass", "aux:pass"}:
        itself = [] if labels & {"prep", "agent", "obl"} else [token]
        return itself + [child for child in children if child.dep_ == "oprd"]  # "is painted green"
    if token.lower_ in COPULAS or token.dep_ == "acl":
        return [child for child in children if child.dep_ in _PREDICATES]
    if token.tag_ == "VBN" and token.dep_ == "amod" and token.head.pos_ == "ADJ":
        return [token.head]  # "a door painted blue", read as "the blue is"
    return []


def _describes(token: Any) -> bool:
    adjective = token.pos_ == "ADJ" or token.dep_ == "acomp"
    return adjective or token.tag_ == "VBN" or token.lower_ in COLOR_WORDS
