"""What a prompt names, for models that are asked for it."""

from dataclasses import dataclass
from functools import lru_cache

from attncontrol.errors import WordError
from attncontrol.prompts.language import require_english
from attncontrol.prompts.parser import parser
from attncontrol.prompts.syntax import tell_apart

_KEPT = 4096  # prompts; each is asked for once per picture


@dataclass(frozen=True)
class Named:
    """A noun, and the words that modify it."""

    noun: str
    modifiers: tuple[str, ...]


@lru_cache(_KEPT)
def noun_phrases(prompt: str) -> tuple[str, ...]:
    """The noun chunks of spaCy's parse: "a red cat" and "a frog"."""
    return tuple(chunk.text for chunk in parser()(prompt).noun_chunks)


@lru_cache(_KEPT)
def named_in(prompt: str) -> tuple[Named, ...]:
    """The things that a picture can show, each once; none of a prompt in another language."""
    try:
        require_english(prompt)
        subjects, _ = tell_apart(prompt)
    except WordError:
        return ()
    return tuple(
        dict.fromkeys(
            Named(each.noun.text.lower(), tuple(word.text.lower() for word in each.modifiers))
            for each in subjects
        )
    )
