"""Which nouns of a parse a picture shows."""

from collections.abc import Sequence
from typing import Any

from attncontrol.prompts.lexicon import (
    AMOUNTS,
    COLOR_WORDS,
    MATERIALS,
    PICTURE_WORDS,
    PICTURES,
    PLACES,
    SHAPES,
)
from attncontrol.prompts.unseen import cannot_be_seen

_GOVERNED = {"dobj", "obj", "pobj", "obl", "nsubjpass", "nsubj:pass", "conj", "poss"}
_SUBJECTS = {"nsubj", "nsubj:pass"}
_SHOWS = {"shows", "show", "depicts", "depict", "features", "showing", "depicting", "featuring"}
_TAKES = {"take", "takes", "taking", "took", "snap", "snaps", "snapping", "capture", "capturing"}
_LOOKS = COLOR_WORDS | MATERIALS | SHAPES
_SIDES = {"left", "right", "other", "opposite", "far", "very", "hand", "same", "front", "either"}


def why_left_out(noun: Any, modifiers: Sequence[Any]) -> str | None:
    """The reason why a noun is no subject by default, or None."""
    word = noun.lower_
    following = noun.nbor(1).lower_ if noun.i + 1 < len(noun.doc) else ""
    described = [modifier.text.lower() for modifier in modifiers]
    if word in PICTURE_WORDS and _names_the_picture(noun, following):
        return "the picture itself"
    if word in AMOUNTS and following == "of" and not set(described) & _LOOKS:
        return "an amount"
    if word in PLACES and not set(described) - _SIDES:
        return "a place in the picture"
    if word in COLOR_WORDS | {"color", "colour"} and not described and _is_bare(noun):
        return "a colour"
    before = noun.nbor(-1).lower_ if noun.i else ""
    return "cannot be seen" if cannot_be_seen(word, before) else None


def _names_the_picture(noun: Any, following: str) -> bool:
    """ "photo" of "a photo of a cat", but not of "a photo on a table" or "a man holding a photo of
    a cat"."""
    if following not in PICTURES:
        return False
    verb = noun.head.lower_
    if noun.dep_ in _SUBJECTS:
        definite = any(child.lower_ == "the" for child in noun.lefts)
        return verb in _SHOWS or not definite
    if following in ("with", "from") and noun.i > 6:
        return False
    first = not any(word.pos_ in ("NOUN", "PROPN") and word.head != noun for word in _before(noun))
    return noun.dep_ not in _GOVERNED or verb in _TAKES or first


def _before(noun: Any) -> Any:
    return noun.doc[: noun.i]


def _is_bare(noun: Any) -> bool:
    """ "black" of "a man in black"."""
    article = any(child.dep_ in ("det", "poss", "nummod") for child in noun.children)
    return not article and noun.dep_ in ("pobj", "obl", "nmod", "dobj", "conj", "acomp")
