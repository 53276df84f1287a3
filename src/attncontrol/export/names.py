"""How the files of a folder of results are called."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence


def readable(text: str) -> str:
    """What can be read of a text, in a file name."""
    letters = unicodedata.normalize("NFC", text).lower()
    return re.sub(r"[\W_]+", "-", letters)[:40].strip("-") or "run"


def stem_of(text: str) -> str:
    """How the files of a prompt begin: what can be read of it, and a mark that no other prompt has,
    also where file systems do not tell capitals or normal forms apart."""
    mark = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:10]
    return f"{readable(text)}-{mark}"


def name_of(prompt: str, method: str, seed: int) -> str:
    """The file of a picture."""
    return f"{stem_of(prompt)}.{plain(method)}.{seed}.png"


def sheet_of(prompt: str, kind: str, seeds: Sequence[int]) -> str:
    """The file of what shows the pictures of several seeds together."""
    span = f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    return f"{stem_of(prompt)}.{plain(kind)}.{span}.png"


def record_of(prompt: str, seed: int) -> str:
    """The file of the maps of a picture."""
    return f"{stem_of(prompt)}.{seed}.safetensors"


def plain(method: str) -> str:
    """The name of a method, ``module:Name`` too, in a file name."""
    return re.sub(r"[^\w.+-]", "-", method)[-40:]
