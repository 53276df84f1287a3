"""The file of chosen heads, the result of a search, read without torch, and what weakens them."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from attncontrol.errors import ResultsError


def load_heads(file: Path) -> list[tuple[str, int]]:
    """The heads (site, number) of ``{"heads": [[site, number], ...]}``. Raises ResultsError for a
    file that is none, names no head, or one twice."""
    try:
        found = json.loads(file.read_bytes())["heads"]
        heads = [(name, number) for name, number in found]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ResultsError(f"{file} is no result of heads search ({error!r})") from error
    wrong = [
        [name, number]
        for name, number in heads
        if not (type(name) is str and type(number) is int and number >= 0)
    ]
    if wrong:
        raise ResultsError(
            f"{file}: a head is [site, number], such as "
            f'["mid_block.attentions.0.transformer_blocks.0.attn1", 3], not {wrong[0]}'
        )
    if not heads or len(set(heads)) < len(heads):
        raise ResultsError(f"{file} names no head" if not heads else f"{file} names a head twice")
    return heads


def is_heads(file: Path) -> bool:
    """Whether it is one."""
    try:
        return bool(load_heads(file))
    except ResultsError:
        return False


def weakening(pipe: Any, settings: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Of the heads of a run or of a picture, by its ``u`` and ``heads_scale``."""
    if not settings.heads:
        return nullcontext
    from attncontrol.edits.soft_identity import SoftIdentity
    from attncontrol.verbs.perturb import perturb

    edit = SoftIdentity(settings.u)
    return partial(perturb, pipe, edit, scale=settings.heads_scale, heads=settings.heads)
