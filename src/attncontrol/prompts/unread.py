"""Why a word of the prompt has no positions: what is said to the user."""

from collections.abc import Sequence

from attncontrol.prompts.tokens import QUOTED, Token


def reads_quotations(tokens: Sequence[Token]) -> bool:
    """Whether the model reads what stands in quotation marks alone, wherever that is."""
    return bool(tokens) and all(token.encoder == QUOTED for token in tokens)


def why_unread(
    tokens: Sequence[Token], phrase: str, place: tuple[int, int], prompt: str = ""
) -> str:
    """Of a word at a place of the prompt of which the text sequence is ``tokens``."""
    start, end = place
    where, limit = f"{phrase!r} (characters {start}-{end})", last_character(tokens)
    if reads_quotations(tokens):
        inside = {i for token in tokens for i in range(token.start, token.end)}
        marked = "".join(c if i in inside else "\0" for i, c in enumerate(prompt))
        texts = [text for text in marked.split("\0") if text]
        return (
            f"{where} has no positions: the picture attends to what stands in quotation marks, "
            f"here {' | '.join(texts) or 'nothing'}, and knows the rest of the prompt in another "
            "way. Name a word that stands there, by number if it stands elsewhere too: 'cat#2'"
        )
    if end > limit:
        return (
            f"{where} lies beyond the text limit of {len(tokens)} tokens; the model reads only "
            f"{prompt[:limit]!r}. Move the word forward or shorten the prompt"
        )
    return (
        f"{where} is changed before it is read, or read together with a word of another prompt: "
        f"the model reads {' '.join(t.text for t in tokens if not t.special)!r}. Write it as it is "
        "read, or name positions, such as words=[2, 5]"
    )


def last_character(tokens: Sequence[Token]) -> int:
    """Where what is read ends."""
    return max((token.end for token in tokens), default=0)
