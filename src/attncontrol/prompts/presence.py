"""Whether a word stands in a prompt that no tokenizer has read."""

from functools import lru_cache

from attncontrol.errors import WordError
from attncontrol.prompts.tokens import Token
from attncontrol.prompts.words import find


@lru_cache(10_000)
def absent(prompt: str, word: str) -> str | None:
    """Why a word cannot be found in a prompt; None if it can."""
    if _stands(prompt, word):
        return None
    letters = [Token(i, 0, letter, i, i + 1, False) for i, letter in enumerate(prompt)]
    try:
        find(letters, prompt, word)
    except WordError as error:
        return str(error)
    return None


def _stands(prompt: str, word: str) -> bool:
    """What is so in plain English for sure: ``find`` takes a hundred times as long."""
    if not (prompt.isascii() and word.isascii() and word[:1].isalnum() and word[-1:].isalnum()):
        return False
    text, word = prompt.lower(), word.lower()
    start = text.find(word)
    around = text[start - 1 : start] + text[start + len(word) : start + len(word) + 1]
    return "#" not in word and start >= 0 and not any(c.isalnum() or c == "_" for c in around)
