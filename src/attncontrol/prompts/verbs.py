"""Verbs that a small pipeline takes for nouns or modifiers: the rules of ``reading`` that find
them, each of a token to its stand-in or None."""

from typing import Any

from attncontrol.prompts.around import FINITE, NOUNS, after, before, clause_before
from attncontrol.prompts.lexicon import (
    ACTIONS,
    ADVERBS,
    COLOR_WORDS,
    EQUIPMENT,
    ING_NOUNS,
    NOUNS_AS_WELL,
    VERBS,
)


def hidden_verb(token: Any) -> str | None:
    """What agrees with the nouns before it, in a clause that has no other verb."""
    left, right = before(token), after(token)
    form = VERBS.get(token.lower_)
    if form is None and right is not None and right.lower_ in ("the", "a", "an"):
        form = _only_verb(token)
    if form is None or token.pos_ in ("VERB", "AUX") or left is None or right is None:
        return None
    if left.pos_ not in NOUNS or right.pos_ not in ("ADP", "DET", "ADV", "PRON", "ADJ", *NOUNS):
        return None
    clause = clause_before(token)
    if token.lower_ in NOUNS_AS_WELL and (not clause or clause[-1].lower_ != "the"):
        return None
    several = left.tag_ in ("NNS", "NNPS") or any(_joins_nouns(word) for word in clause)
    agrees = form == "past" or several == (form == "base")
    if not agrees or any(word.tag_ in FINITE for word in clause):
        return None
    return "are" if right.pos_ in ("ADP", "ADV") and right.lower_ not in ADVERBS else "saw"


def _only_verb(token: Any) -> str | None:
    """A noun before an article, in a sentence on definite things that has no verb."""
    doc = token.doc
    sentence = doc[0].lower_ == "the" and doc[-1].text == "." and token.pos_ in (*NOUNS, "ADJ")
    if not sentence or any(word.tag_ in (*FINITE, "VBN", "VBG") for word in doc):
        return None
    return "s" if token.tag_ == "NNS" else "base"


def hidden_past(token: Any) -> str | None:
    """ "added" of "The round frame added charm to it.", read as a modifier of the charm."""
    left, right = before(token), after(token)
    modifies = token.tag_ in ("VBN", "VBD") and token.dep_ == "amod" and left is not None
    if not modifies or left.pos_ not in NOUNS or token.doc[0].lower_ != "the":
        return None
    finite = any(word.tag_ in FINITE and word != token for word in token.doc)
    return None if finite or right is None else "saw"


def _joins_nouns(token: Any) -> bool:
    left = before(token)
    joins = token.lower_ == "and" and left is not None and left.pos_ in NOUNS
    return joins and left.lower_ not in COLOR_WORDS


def joined_action(token: Any) -> str | None:
    """ "chanting" of "is playing with a rope and chanting rhymes"."""
    joins = before(token)
    if joins is None or joins.lower_ != "and" or not token.lower_.endswith("ing"):
        return None
    if token.lower_ in EQUIPMENT or (token.pos_ == "VERB" and token.head.pos_ in ("VERB", "AUX")):
        return None
    acts = any(
        word.tag_ == "VBG" and (aux := before(word)) is not None and aux.pos_ == "AUX"
        for word in clause_before(token)
    )
    right = after(token)
    ends = right is None or right.pos_ == "PUNCT"
    return ("is" if ends else "sees") if acts else None


def action(token: Any) -> str | None:
    """ "skiing" of "a woman wearing red pants skiing", "riding" of "a woman in pink riding":
    a word in -ing behind clothes or a colour that is read as a noun or as a modifier."""
    left, right = before(token), after(token)
    misread = token.pos_ in NOUNS or token.dep_ in ("amod", "compound")
    acts = misread and token.lower_.endswith("ing") and token.lower_ not in ING_NOUNS
    if left is None or not acts:
        return None
    ends = right is None or right.pos_ in ("PUNCT", "ADP")
    if left.tag_ == "NNS" and ends and token.pos_ in NOUNS:
        return "standing"
    governs = token.dep_ == left.dep_ == "compound" and left.head == token
    if governs and token.lower_ not in EQUIPMENT and token.head == right:
        return "holding"
    opens = next((w for w in clause_before(token) if not _is_colour_list(w)), left)
    colour = left.lower_ in COLOR_WORDS and opens.pos_ == "ADP"
    known = left.pos_ == "NOUN" and token.lower_ in ACTIONS and token.pos_ in NOUNS
    if known or (colour and (ends or token.lower_ not in EQUIPMENT - ACTIONS)):
        return "is" if ends else "sees"
    return None


def _is_colour_list(token: Any) -> bool:
    return token.lower_ in COLOR_WORDS or token.pos_ == "CCONJ"


def adverb(token: Any) -> str | None:
    """ "underfoot" of "the leaves crunched underfoot"."""
    left = before(token)
    verb = left is not None and left.tag_ in ("VBN", "VBD", "VBG")
    return "away" if verb and token.pos_ in NOUNS and token.lower_ in ADVERBS else None
