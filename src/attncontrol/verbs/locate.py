"""``locate``: words and phrases to token positions."""

from typing import Annotated, Any

from attncontrol.checks.arguments import checked
from attncontrol.errors import WordError
from attncontrol.prompts.tokens import Span
from attncontrol.prompts.words import find


@checked
def locate(pipe: Any, prompt: str, phrase: Annotated[str, WordError], **encoding: Any) -> Span:
    """Token positions of a word or phrase of the prompt, on the key side of the pipeline's text
    attention. See ``find``.

    ``encoding`` are arguments of the pipeline that change how it reads the prompt, such as
    ``max_sequence_length``.
    """
    from attncontrol.families.known import family_of
    from attncontrol.families.parts import default_encoding

    return find(
        family_of(pipe).tokens(pipe, prompt, default_encoding(pipe) | encoding), prompt, phrase
    )
