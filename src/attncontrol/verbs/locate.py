"""``locate``: words and phrases to token positions."""

from typing import Annotated, Any

from attncontrol.checks.arguments import checked
from attncontrol.errors import WordError
from attncontrol.prompts.tokens import Span
from attncontrol.prompts.words import Word, find, require_word


@checked
def locate(pipe: Any, prompt: str, phrase: Annotated[Word, WordError], **encoding: Any) -> Span:
    """Token positions of a word or phrase of the prompt, on the key side of the pipeline's text
    attention. See ``find``.

    ``encoding`` are arguments of the pipeline that change how it reads the prompt, such as
    ``max_sequence_length``; ``prompt_2`` and ``prompt_3`` are looked through too, where attention
    sees them.
    """
    from attncontrol.families.encoder import joined, positions
    from attncontrol.families.known import family_of
    from attncontrol.families.parts import default_encoding

    family, known = family_of(pipe), default_encoding(pipe) | encoding
    encoders, names = family.encoders(pipe), ("prompt_2", "prompt_3", "prompt_4")
    texts = {"prompt": prompt} | {n: known[n] for n in names if isinstance(known.get(n), str)}
    tokens = positions(pipe, encoders, texts, known)
    return find(tokens, joined(texts, encoders), require_word(phrase))
