"""Words that the tagger of a small pipeline reads as something else, and how they are told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attncontrol.prompts.lexicon import ACTIONS, COLOR_WORDS, MATERIALS, PAINTS, SHAPES

NAMED = COLOR_WORDS | MATERIALS | SHAPES
BEFORE = {"amod", "compound", "nmod", "npadvmod", "obl:npmod", "nn"}  # of a noun, on its left
_BORDERS = ("PUNCT", "CCONJ", "ADP")


@dataclass(frozen=True)
class Place:
    """A token that may be a noun with another tag, and what stands around it."""

    token: Any
    run: tuple[Any, ...]  # adjectives, nouns, adverbs and hyphens before it, the nearest one first
    left: Any  # what stands before the run; None at the beginning
    right: Any  # the next token; None at the end

    @property
    def article(self) -> bool:
        return self.left is not None and self.left.tag_ == "DT"

    @property
    def begins(self) -> bool:
        """Nothing before the run that could be the subject of a verb: not "a cat slept"."""
        return self.article or self.left is None or self.left.pos_ in _BORDERS

    @property
    def ends(self) -> bool:
        """An article follows the next word, which is no preposition."""
        if self.right is None:
            return True
        after = self.token.i + 2
        return (
            self.right.pos_ != "ADP"
            and after < len(self.token.doc)
            and self.token.doc[after].pos_ == "DET"
        )

    def read_as(self, *tags: str) -> bool:
        return self.token.pos_ in tags


@dataclass(frozen=True)
class Repair:
    """A rule and a prompt that needs it."""

    name: str
    holds: Callable[[Place], bool]
    example: str


REPAIRS = (
    Repair(
        "a modal verb behind a modifier",
        lambda at: at.token.tag_ == "MD" and bool(at.run),
        "a soda can",
    ),
    Repair(
        "a verb behind an article",
        lambda at: at.read_as("VERB") and at.article and not at.run,
        "a sled",
    ),
    Repair(
        "a verb behind a preposition, an adjective and perhaps more",
        lambda at: (
            at.read_as("VERB")
            and bool(at.run)
            and at.left is not None
            and at.left.pos_ == "ADP"
            and at.run[-1].pos_ == "ADJ"
            and at.run[0].tag_ != "NNS"
        ),
        "a pile of colorful autumn leaves",
    ),
    Repair(
        "a verb behind a word that can modify",
        lambda at: at.read_as("VERB") and at.begins and bool(at.run) and _could_modify(at.run[0]),
        "a white rose",
    ),
    Repair(
        "an adjective whose article belongs to it or to what follows",
        lambda at: (
            at.read_as("ADJ")
            and at.article
            and at.left.head in (at.token, at.right)
            and not (at.right is not None and at.right.text == "," and at.token.dep_ == "amod")
        ),
        "An oven and a red toaster.",
    ),
    Repair(
        "an adjective or adverb that ends a phrase, behind an adjective",
        lambda at: (
            at.read_as("ADJ", "ADV")
            and at.article
            and at.ends
            and bool(at.run)
            and at.run[0].pos_ == "ADJ"
        ),
        "a white cockatoo and a cat",
    ),
)


def mistaken(token: Any) -> list[Any] | None:
    """The modifiers of a noun with another tag: it ends a run that an article or a phrase began,
    and governs nothing; else None."""
    place = _place(token)
    if place is None or not any(repair.holds(place) for repair in REPAIRS):
        return None
    return list(place.run)


def _place(token: Any) -> Place | None:
    """None where no noun can be: at the beginning, or before a word that continues the phrase."""
    right = token.nbor(1) if token.i + 1 < len(token.doc) else None
    continues = right is not None and right.pos_ not in _BORDERS and right.tag_ != "VBG"
    if token.i == 0 or token.tag_ == "VBG" or continues:
        return None
    run = []
    left = token.nbor(-1)
    while left is not None and (left.pos_ in ("ADJ", "NOUN", "PROPN", "ADV") or left.text == "-"):
        run.append(left)
        left = left.nbor(-1) if left.i > 0 else None
    return Place(token, tuple(run), left, right)


def _could_modify(token: Any) -> bool:
    """Adjectives, what a hyphen ends, and colours taken for nouns; "a cat slept" has none before
    its verb."""
    return (
        token.pos_ == "ADJ"
        or token.lower_ in COLOR_WORDS
        or (token.i > 0 and token.nbor(-1).text == "-")
    )


def paints(token: Any) -> bool:
    """ "painted" of "a mailbox painted yellow", for which the colour is often the noun."""
    between = 0 < token.i < len(token.doc) - 1
    if not between or token.lower_ not in PAINTS or token.nbor(1).lower_ not in COLOR_WORDS:
        return False
    after = token.doc[token.i + 2 : token.i + 3]
    return token.nbor(-1).pos_ in ("NOUN", "PROPN") and not any(
        following.pos_ in ("NOUN", "PROPN", "ADJ") for following in after
    )


def is_action(token: Any) -> bool:
    """Also a verb read as a plural: what stands between "dog" and "a cat"."""
    chases = (
        token.tag_ == "NNS"
        and 0 < token.i < len(token.doc) - 1
        and token.nbor(1).lower_ in ("a", "an", "the")
        and token.nbor(-1).dep_ == "compound"
    )
    return token.lower_ in ACTIONS or chases


def acts(token: Any) -> bool:
    """What "a woolen scarf sitting beside" is read as: one noun, of which "scarf" is a part."""
    return token.dep_ == "compound" and (is_action(token.head) or token.head.pos_ == "VERB")


def _has_noun_before(token: Any) -> bool:
    """ "bottle" of "a blue water bottle and office supplies"."""
    return any(child.dep_ == "compound" for child in token.lefts)


def is_listed(token: Any) -> bool:
    """ "cheese" of "melted cheese and black olives", read as a modifier of the olives; "dark green
    and white shirt" is one noun."""
    if token.pos_ != "NOUN" or token.dep_ not in BEFORE or token.lower_ in NAMED:
        return False
    joined = any(
        (child.dep_ == "conj" and (child.pos_ == "ADJ" or child.lower_ in NAMED))
        or (child.dep_ == "conj" and _has_noun_before(token))
        or (
            child.dep_ == "cc" and child.nbor(1).dep_ == "amod" and child.nbor(1).head == token.head
        )
        for child in token.rights
    )
    described = token.i > 0 and token.nbor(-1).dep_ in BEFORE
    return joined and described


def listed_before(token: Any) -> list[Any]:
    """What stands before the first listed noun of a noun and belongs to that."""
    first = next((child for child in token.lefts if is_listed(child)), None)
    return [] if first is None else [child for child in token.lefts if child.i < first.i]


def continues(token: Any) -> bool:
    """ "well" of "a stone well", read as another name of the stone."""
    return (
        token.dep_ == "appos"
        and token.pos_ == "NOUN"
        and token.head.pos_ == "NOUN"
        and token.head.i == token.i - 1
    )
