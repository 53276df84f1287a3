"""Nouns and their modifiers in other languages than English, by the parts of speech and the
relations that spaCy's pipelines of all languages tell."""

from collections.abc import Iterator
from typing import Any

from attncontrol.errors import WordError
from attncontrol.prompts.parser import other_parser, other_pipelines

_NOUNS = ("NOUN", "PROPN")
_INSIDE = {"compound", "flat", "fixed", "pnc"}  # of one name; pnc is that of German pipelines
_SUBJECTS = {"nsubj", "sb", "sp"}
_PREDICATES = {"pd", "acomp", "attr", "xcomp"}


def parsed(prompt: str, language: str) -> Any:
    """The parse by an installed pipeline of a language, such as "German". Raises WordError."""
    parser = other_parser(language)
    if parser is None:
        names = other_pipelines(language)
        install = f", or install a spaCy pipeline of it, such as {names[0]}" if names else ""
        raise WordError(
            "without a spaCy pipeline of their language nouns are found in English prompts only, "
            f"and {prompt!r} seems to be {language}; name the words yourself: words=['...'] or "
            f"--words ...{install}"
        )
    return parser(prompt)


def described(doc: Any) -> dict[int, list[Any]]:
    """Positions of nouns, and what modifies them: adjectives and participles that hang on a noun,
    also through others ("klein und rot"), predicates, and the other parts of a compound."""
    nouns = {token.i: list[Any]() for token in doc if token.pos_ in _NOUNS and not _inside(token)}
    for token in doc:
        for noun in _modified(token):
            if noun.i in nouns and noun.i != token.i:
                nouns[noun.i].append(token)
    return nouns


def _relation(token: Any) -> str:
    relation: str = token.dep_.partition(":")[0].lower()
    return relation


def _inside(token: Any) -> bool:
    return _relation(token) in _INSIDE and token.head.i != token.i and token.head.pos_ in _NOUNS


def _modified(token: Any) -> Iterator[Any]:
    """The nouns that a word modifies."""
    if _inside(token):
        yield token.head
    if token.pos_ != "ADJ" and not (token.pos_ == "VERB" and _relation(token) in ("amod", "acl")):
        return
    head = token
    while head.head.i != head.i and (head.i == token.i or head.pos_ in ("ADJ", "CCONJ")):
        head = head.head
    if head.pos_ in _NOUNS:
        yield head
        return
    of_clause = [token, *([token.head] if _relation(token) in _PREDICATES else [])]
    for verb in of_clause:
        yield from (child for child in verb.children if _relation(child) in _SUBJECTS)
