"""What stands around a token."""

from typing import Any

NOUNS = ("NOUN", "PROPN")
FINITE = ("VBD", "VBP", "VBZ", "MD")
_CLAUSE = ("SCONJ", "PUNCT")


def before(token: Any, steps: int = 1) -> Any:
    return token.doc[token.i - steps] if token.i >= steps else None


def after(token: Any, steps: int = 1) -> Any:
    return token.doc[token.i + steps] if token.i + steps < len(token.doc) else None


def clause_before(token: Any) -> list[Any]:
    """What stands before a token since the last comma or conjunction of clauses, nearest first."""
    found = []
    for at in range(token.i - 1, -1, -1):
        if token.doc[at].pos_ in _CLAUSE or token.doc[at].lower_ in ("as", "while", "when"):
            break
        found.append(token.doc[at])
    return found
