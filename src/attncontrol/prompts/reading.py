"""The parse of a prompt, read a second time where a small pipeline stumbles.

The tagger of a small pipeline takes words that are rare, or a noun as well as a verb, for the wrong
one ("the spoon and the dish *rest* on a tray", "a pyramidal *bookend*"), and the parse goes astray
around them. Such a word is told by what stands around it; the sentence is read once more with a
frequent word of the right kind in its place, and that parse is taken for the words of the prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from attncontrol.prompts.around import FINITE, NOUNS, after, before, clause_before
from attncontrol.prompts.lexicon import CLOSED, COLOR_WORDS, MATERIALS, POSTNOMINAL, VERBS
from attncontrol.prompts.parser import parser, retold
from attncontrol.prompts.verbs import action, adverb, hidden_past, hidden_verb, joined_action

_AGAIN = 2  # a stand-in may bring out another word that is misread
_CLAUSE = ("SCONJ", "PUNCT")


@dataclass(frozen=True)
class StandIn:
    """A rule: where it holds ``word`` of a token is read in its place; and a prompt that needs
    it."""

    name: str
    word: Callable[[Any], str | None]
    example: str


@lru_cache(maxsize=256)  # checks, losses and pictures ask for the same prompt
def read(text: str) -> Any:
    """The parse of ``text``, with stand-ins where the rules find any."""
    doc = parser()(text)
    words: dict[int, str] = {}
    for _ in range(_AGAIN):
        found = {token.i: word for token in doc if (word := _stand_in(token)) is not None}
        if found.keys() <= words.keys():
            break
        words = found | words
        doc = retold(doc, words)
    return doc


def _stand_in(token: Any) -> str | None:
    return next((word for rule in STAND_INS if (word := rule.word(token)) is not None), None)


def _hidden_noun(token: Any) -> str | None:
    """ "rose" of "the pink rose petal fell": the verb of its clause comes later."""
    left, right = before(token), after(token)
    if token.tag_ not in FINITE or token.pos_ == "AUX" or left is None or right is None:
        return None
    modified = left.pos_ == "ADJ" or left.lower_ in COLOR_WORDS
    if right.tag_ in ("VBD", "VBN", "VBZ"):
        return "flower" if modified else None
    for word in token.doc[token.i + 1 :]:
        if word.pos_ in (*_CLAUSE, "CCONJ", "ADP", "DET", "PRON"):
            return None
        if word.tag_ in FINITE:
            return "flower" if modified else None
    return None


def _rare_noun(token: Any) -> str | None:
    """What ends a noun phrase and is read as no noun."""
    left, right = before(token), after(token)
    if left is None or not token.is_alpha or token.lower_ in CLOSED or token.pos_ in NOUNS:
        return None
    if token.pos_ in ("AUX", "DET", "ADP", "CCONJ", "NUM", "PART", "SCONJ"):
        return None
    if not _ends(right) or not _article_opens(token):
        return None
    if token.pos_ == "PRON":
        return "box"
    if _disagrees(token, left, right):
        return "lamp"
    noun_before = left.pos_ in NOUNS and left.lower_ not in COLOR_WORDS
    rare = token.pos_ in ("ADJ", "ADV") and noun_before and token.lower_ not in POSTNOMINAL
    if right is not None and right.tag_ in FINITE:
        rare = rare and token.pos_ == "ADJ"
    if rare and not token.lower_.endswith(("ly", "ed")) and token.lower_ not in COLOR_WORDS:
        return "box"
    return None


def _disagrees(token: Any, left: Any, right: Any) -> bool:
    """ "sign" of "a green stop sign sitting there", a plural verb behind one thing."""
    if token.tag_ not in ("VBP", "VB") or token.lower_ in VERBS or left.tag_ not in ("NN", "JJ"):
        return False
    if right is None or right.pos_ == "CCONJ":
        return True
    article = next(word for word in clause_before(token) if word.tag_ == "DT")
    return article.i == 0 or article.nbor(-1).pos_ != "CCONJ"


def _ends(right: Any) -> bool:
    """Whether a noun phrase may end before this token."""
    return (
        right is None
        or right.pos_ in ("PUNCT", "CCONJ", "ADP", "AUX")
        or right.tag_ in (*FINITE, "VBG")
        or right.lower_ == "next"
    )


def _article_opens(token: Any) -> bool:
    """Between an article and ``token`` there are only words of one noun phrase."""
    for word in clause_before(token)[:6]:
        joins = word.lower_ == "and" and word.i > 0 and word.nbor(-1).pos_ == "ADJ"
        if not joins and word.pos_ not in ("ADJ", "ADV", *NOUNS):
            return bool(word.tag_ == "DT")
    return False


def _noun_of_noun(token: Any) -> str | None:
    """ "hydrant" of "a yellow fire hydrant", read as what the fire is."""
    left = before(token)
    said = left is not None and left.dep_ == "nsubj" and left.head == token
    return "box" if said and token.pos_ in NOUNS and left.pos_ in NOUNS else None


def _material(token: Any) -> str | None:
    """ "baking" of "a glass baking dish", read as what the glass does."""
    left, right = before(token), after(token)
    between = left is not None and right is not None
    made = between and left.lower_ in MATERIALS and right.pos_ in NOUNS
    return "big" if made and token.tag_ in ("VBG", "VBN") else None


def _listed_adjective(token: Any) -> str | None:
    """ "bold" and "striking" of "the bold, striking patterns", unless they are read as modifiers of
    the patterns; "grey" of "a white, grey and brown tower"."""
    if (noun := after(token, 3)) is not None and _is_pair(token, after(token, 2), noun):
        return "big"
    first, noun = before(token, 2), after(token)
    if first is not None and noun is not None and _is_pair(first, token, noun):
        return "old"
    right = after(token)
    if token.i < 2 or token.nbor(-1).text != "," or right is None:
        return None
    described = token.nbor(-2).pos_ in ("ADJ", "VERB") or token.nbor(-2).lower_ in COLOR_WORDS
    misread = token.lower_ in COLOR_WORDS and token.pos_ in NOUNS and described
    return "big" if misread and (right.pos_ in ("CCONJ", *NOUNS) or right.text == ",") else None


def _is_pair(first: Any, second: Any, noun: Any) -> bool:
    """An article, two words with a comma between them, a noun, of which one is misread."""
    article = before(first)
    if article is None or article.pos_ != "DET" or first.nbor(1).text != ",":
        return False
    describe = all(word.pos_ in ("ADJ", "VERB", *NOUNS) for word in (first, second))
    if not describe or noun.pos_ not in NOUNS or noun.lower_ in ("and", "or"):
        return False
    if first.pos_ in NOUNS and second.tag_ not in ("VBG", "VBN", "JJ"):
        return False
    bare = noun.tag_ == "NN" or second.tag_ == "JJ"
    sentence = any(word.tag_ in FINITE for word in noun.doc[noun.i :])
    if first.pos_ in NOUNS and not (bare or sentence):
        return False
    return any(word.dep_ != "amod" or word.head.i < noun.i for word in (first, second))


def _colour(token: Any) -> str | None:
    """ "white" of "White frosted donuts on a plate", "orange" of "a sofa and orange chairs"."""
    if token.lower_ in COLOR_WORDS and token.pos_ == "VERB":
        return "big"
    participle, noun = after(token), after(token, 2)
    begins = token.i == 0 and token.lower_ in COLOR_WORDS and token.pos_ in NOUNS
    follows = noun is not None and participle.tag_ == "VBN" and noun.pos_ in NOUNS
    return "big" if begins and follows else None


STAND_INS = (
    StandIn(
        "a verb behind its subject", hidden_verb, "The gray cups and the metal dish rest on a tray."
    ),
    StandIn("a past read as a modifier", hidden_past, "The lamp with its round foot added charm."),
    StandIn("a noun before the verb of its clause", _hidden_noun, "The pink rose petal fell."),
    StandIn("a rare noun that ends its phrase", _rare_noun, "a yellow fire hydrant next to a car"),
    StandIn("a noun behind a noun", _noun_of_noun, "a yellow fire hydrant and a person in black"),
    StandIn("an action behind a material", _material, "The glass baking dish is hot."),
    StandIn("an adjective behind a comma", _listed_adjective, "A white, grey and brown tower."),
    StandIn("an adverb", adverb, "The leaves of the orchard crunched underfoot."),
    StandIn(
        "an action that and joins to another",
        joined_action,
        "A child is playing with a jump rope and chanting rhymes.",
    ),
    StandIn("an action", action, "A woman wearing red pants skiing."),
    StandIn("a colour", _colour, "a sofa and orange chairs"),
)
