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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attncontrol.errors import WordError
from attncontrol.prompts.lexicon import ACTIONS, COLORS, COPULAS, DEGREES, PAINTS, PICTURES, PLACES
from attncontrol.prompts.parser import parser

_BEFORE = {"amod", "compound", "nmod", "npadvmod", "obl:npmod", "nn"}  # of a noun, on its left
_INSIDE = _BEFORE | {"advmod", "conj"}  # of a modifier
_PREDICATES = {"acomp", "attr", "oprd", "xcomp"}
_SUBJECTS = {"nsubj", "nsubjpass", "nsubj:pass"}
_RELATIVE = {"relcl", "acl:relcl"}


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
    """The nouns of a prompt in order, each with its modifiers. Empty if there is none."""
    doc = parser()(prompt)
    painted = {token.i + 1: token.nbor(-1) for token in doc if _paints(token)}
    repaired = {token.i: mods for token in doc if (mods := _mistaken(token)) is not None}
    taken = {mod.i for mods in repaired.values() for mod in mods}
    found: dict[int, list[Any]] = {}
    for token in doc:
        if token.i in repaired:
            found[token.i] = list(repaired[token.i])
        elif token.i not in taken and token.i not in painted and _is_head(token):
            found[token.i] = list(_modifiers(token))
    for index, noun in painted.items():
        found[noun.i] = [*found.get(noun.i, ()), doc[index], *_chain(doc[index], _INSIDE)]
    for token in doc:
        for noun, predicate in _predications(token):
            if noun.i in found and predicate.i not in found:
                found[noun.i] += [predicate, *_chain(predicate, _INSIDE)]
    entities = []
    for index, modifiers in found.items():
        noun = _word(doc[index])
        own = (
            m
            for m in modifiers
            if painted.get(m.i, doc[index]) == doc[index] and m.i + 1 not in painted
        )
        words = {
            _word(m)
            for m in own
            if m.lower_ not in DEGREES and m.pos_ not in ("DET", "NUM", "PRON", "PUNCT")
        }
        entities.append(Entity(noun, tuple(sorted(words - {noun}, key=lambda word: word.start))))
    return tuple({e.noun: e for e in sorted(entities, key=lambda e: e.noun.start)}.values())


def subjects_of(prompt: str) -> tuple[Entity, ...]:
    """The nouns that a picture can show: without words for pictures and places ("a photo of", "to
    the left of").

    Raises WordError if there is no noun.
    """
    found = analyse(prompt)
    if not found:
        raise WordError(
            f"no noun was found in the prompt {prompt!r}; name the words yourself: words=['...'] or --words ..."
        )
    return (
        tuple(entity for entity in found if entity.noun.text.lower() not in PICTURES | PLACES)
        or found
    )


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


def _is_head(token: Any) -> bool:
    """A noun that does not stand before another one as its modifier."""
    if (
        token.pos_ not in ("NOUN", "PROPN")
        or _is_action(token)
        or (token.lower_ in COLORS and token.dep_ in _PREDICATES)
    ):
        return False
    if _acts(token) or _is_listed(token):
        return True
    if (
        not token.whitespace_
        and token.i + 1 < len(token.doc)
        and token.nbor(1).text == "-"
        and token.head.pos_ == "VERB"
    ):
        return False  # "hand" of "hand-painted"
    if any(_continues(child) for child in token.rights):
        return False
    if token.dep_ == "conj" and (
        (token.head.dep_ == "acomp" and not any(token.children)) or _is_listed(token.head)
    ):
        return False  # "spiky" of "that is tiny and spiky", "silver" of "a golden fish and silver shells"
    if (
        token.dep_ == "npadvmod"
        and token.i + 1 == token.head.i
        and token.head.dep_ == "amod"
        and token.head.pos_ == "ADJ"
    ):
        return False  # "lemon" of "a lemon yellow scooter"
    return not (
        token.dep_ in _BEFORE and token.i < token.head.i and token.head.pos_ in ("NOUN", "PROPN")
    )


def _is_action(token: Any) -> bool:
    """Also a verb read as a plural: what stands between "dog" and "a cat"."""
    chases = (
        token.tag_ == "NNS"
        and token.i + 1 < len(token.doc)
        and token.nbor(1).lower_ in ("a", "an", "the")
    )
    return token.lower_ in ACTIONS or (chases and token.i > 0 and token.nbor(-1).dep_ == "compound")


def _acts(token: Any) -> bool:
    """What "a woolen scarf sitting beside" is read as: one noun, of which "scarf" is a part."""
    return token.dep_ == "compound" and (_is_action(token.head) or token.head.pos_ == "VERB")


def _is_listed(token: Any) -> bool:
    """ "cheese" of "melted cheese and black olives", read as a modifier of the olives; "dark green
    and white shirt" is one noun."""
    joined = [
        child
        for child in token.rights
        if child.dep_ == "conj" and (child.pos_ == "ADJ" or child.lower_ in COLORS)
    ]
    own = [child for child in token.lefts if child.dep_ in _BEFORE]
    return (
        token.pos_ == "NOUN"
        and token.dep_ in _BEFORE
        and bool(joined and own)
        and token.lower_ not in COLORS
    )


def _continues(token: Any) -> bool:
    """ "well" of "a stone well", read as another name of the stone."""
    return (
        token.dep_ == "appos"
        and token.pos_ == "NOUN"
        and token.head.pos_ == "NOUN"
        and token.head.i == token.i - 1
    )


def _modifiers(noun: Any) -> Iterator[Any]:
    before = list(noun.lefts)
    if _acts(noun):
        before += [child for child in noun.head.lefts if child.i < noun.i]
    if _continues(noun):
        yield noun.head
        before += noun.head.lefts
    if noun.dep_ in ("dobj", "obj"):
        verb = noun.head
        begins = (
            verb.tag_ in ("VBD", "VBN") and verb.i == noun.i - 1 and not any(verb.lefts)
        )  # "spotted mushrooms", read as a sentence
        follows = (
            verb.dep_ == "pcomp" and verb.head.lower_ == "with" and not _has_article(noun)
        )  # "with glowing green crystals"
        if begins or follows:
            yield verb
    for child in before:
        if child.tag_ == "VBG" and any(
            of.dep_ == "npadvmod" and of.whitespace_ for of in child.lefts
        ):
            continue  # "juggling" of "a clown juggling red balls"
        if _is_listed(child):
            yield from (joined for joined in child.rights if joined.dep_ == "conj")
        elif child.dep_ in _BEFORE and not any(
            grandchild.dep_ == "case" for grandchild in child.children
        ):
            yield child
            yield from _chain(child, _INSIDE)


def _chain(token: Any, labels: set[str]) -> Iterator[Any]:
    """What modifies or joins a modifier, and so on; a joined noun begins another entity."""
    for child in token.children:
        another = child.pos_ not in ("ADJ", "NOUN", "PROPN", "VERB") or _has_article(child)
        if child.dep_ in labels and not (child.dep_ == "conj" and another):
            yield child
            yield from _chain(child, labels)


def _has_article(token: Any) -> bool:
    return any(child.dep_ == "det" for child in token.lefts)


def _predications(token: Any) -> Iterator[tuple[Any, Any]]:
    """(noun, adjective) of a clause whose verb, or in UD whose predicate, is ``token``."""
    if any(child.dep_ in ("cop", "auxpass", "aux:pass") for child in token.children):
        predicates = (
            []
            if any(child.dep_ in ("prep", "agent", "obl") for child in token.children)
            else [token]
        )
        predicates += [
            child for child in token.children if child.dep_ == "oprd"
        ]  # "is painted green"
    elif token.lower_ in COPULAS or token.dep_ == "acl":
        predicates = [child for child in token.children if child.dep_ in _PREDICATES]
    elif token.tag_ == "VBN" and token.dep_ == "amod" and token.head.pos_ == "ADJ":
        predicates = [token.head]  # "a door painted blue", read as "the blue is"
    else:
        return
    subjects = [child for child in token.children if child.dep_ in _SUBJECTS]
    if token.dep_ in (*_RELATIVE, "acl") and not any(
        subject.pos_ in ("NOUN", "PROPN") for subject in subjects
    ):  # "whose tail is"
        subjects = [token.head]
    said = [
        p
        for p in predicates
        if p.pos_ == "ADJ" or p.tag_ == "VBN" or p.dep_ == "acomp" or p.lower_ in COLORS
    ]
    for subject in subjects:
        joined = (
            []
            if token.dep_ in _RELATIVE
            else [child for child in subject.children if child.dep_ == "conj"]
        )
        yield from ((noun, predicate) for noun in (subject, *joined) for predicate in said)


def _mistaken(token: Any) -> list[Any] | None:
    """The modifiers of a noun with another tag: it ends a run that an article or a phrase began,
    and governs nothing; else None."""
    if token.i == 0 or token.tag_ == "VBG":
        return None
    run: list[Any] = []
    left = token.nbor(-1)
    while left is not None and (left.pos_ in ("ADJ", "NOUN", "PROPN", "ADV") or left.text == "-"):
        run.append(left)
        left = left.nbor(-1) if left.i > 0 else None
    following = token.nbor(1) if token.i + 1 < len(token.doc) else None
    if not (
        following is None or following.pos_ in ("PUNCT", "CCONJ", "ADP") or following.tag_ == "VBG"
    ):
        return None
    if token.tag_ == "MD":  # "a soda can"
        return run or None
    article = left is not None and left.tag_ == "DT"
    if token.pos_ == "VERB" and (
        article or left is None or left.pos_ in ("PUNCT", "CCONJ", "ADP")
    ):  # not "a cat slept"
        leaves = (
            run and left is not None and left.pos_ == "ADP" and run[-1].pos_ == "ADJ"
        )  # of "colorful autumn leaves"
        return run if (article and not run) or leaves or (run and _could_modify(run[0])) else None
    if (
        article and token.pos_ == "ADJ" and left.head in (token, following)
    ):  # "an oven"; "a little kitten playing"
        return run
    ends = following is None or (
        following.pos_ != "ADP" and token.i + 2 < len(token.doc) and token.nbor(2).pos_ == "DET"
    )
    if (
        article and ends and token.pos_ in ("ADJ", "ADV") and run and run[0].pos_ == "ADJ"
    ):  # "a white cockatoo and a"
        return run
    return None


def _paints(token: Any) -> bool:
    """ "painted" of "a mailbox painted yellow", for which the colour is often the noun."""
    if (
        token.lower_ not in PAINTS
        or token.i == 0
        or token.i + 1 == len(token.doc)
        or token.nbor(1).lower_ not in COLORS
    ):
        return False
    after = token.doc[token.i + 2 : token.i + 3]
    return token.nbor(-1).pos_ in ("NOUN", "PROPN") and not any(
        following.pos_ in ("NOUN", "PROPN", "ADJ") for following in after
    )


def _could_modify(token: Any) -> bool:
    """Adjectives, what a hyphen ends, and colours taken for nouns; "a cat slept" has none before
    its verb."""
    return (
        token.pos_ == "ADJ"
        or token.lower_ in COLORS
        or (token.i > 0 and token.nbor(-1).text == "-")
    )


def _word(token: Any) -> Word:
    """The token with what hyphens join to it."""
    first = last = token
    while (
        first.i > 0 and not first.nbor(-1).whitespace_ and "-" in (first.text, first.nbor(-1).text)
    ):
        first = first.nbor(-1)
    while (
        last.i + 1 < len(last.doc)
        and not last.whitespace_
        and "-" in (last.text, last.nbor(1).text)
    ):
        last = last.nbor(1)
    start, end = first.idx, last.idx + len(last)
    return Word(token.doc.text[start:end], start, end)
