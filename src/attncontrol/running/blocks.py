"""Contexts that one block of a modular pipeline opens and another one closes.

Blocks run one after another, and none of them sees that a later one failed: then nobody closes what
was opened. So contexts belong to the run that opened them. Once it is over, the first that comes
closes them: the next run of the pipeline, before its denoiser computes anything, or the next
context on any pipeline. Until then they act in nothing: no run of theirs is left, and other
pipelines that share the model are not theirs.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from attncontrol.errors import CouplingError
from attncontrol.running.own import is_running, state_of_run

Control = Callable[[Any], AbstractContextManager[Any]]
"""Makes a context of a pipeline, such as ``lambda pipe: record(pipe, ["cat"])``."""


class _NotClosedError(Exception):
    """What contexts are told of a run that ended without the block that closes them."""


@dataclass(frozen=True, eq=False)
class _Held:
    pipe: Any
    state: Any
    thread: int
    contexts: ExitStack
    seen: Any


_HELD: dict[int, _Held] = {}
"""By the id of the pipeline."""


def open_in_run(pipe: Any, control: Control | Sequence[Control]) -> None:
    """Opens what ``control`` makes of the pipeline, or every one of several, in the order given;
    ``close_in_run`` closes it. Raises CouplingError outside of a run, and within another one."""
    close_left()
    if (state := state_of_run(pipe)) is None:
        raise CouplingError("open_in_run is for blocks of a modular pipeline that is running")
    if id(pipe) in _HELD:
        raise CouplingError(
            "a block of this run has opened contexts already; give that one all of them, as "
            "control=[...]"
        )
    with ExitStack() as stack:
        if isinstance(control, Sequence):
            seen: Any = [stack.enter_context(one(pipe)) for one in control]
        else:
            seen = stack.enter_context(control(pipe))
        _HELD[id(pipe)] = _Held(pipe, state, get_ident(), stack.pop_all(), seen)


def close_in_run(pipe: Any) -> Any:
    """Closes what ``open_in_run`` opened and returns what it gave: one, or a list of several.
    Raises CouplingError where nothing was opened in this run."""
    close_left()
    if id(pipe) not in _HELD:
        raise CouplingError(
            "no block of this run has opened contexts: insert the one that does (install) before "
            "the blocks that read the prompt and denoise"
        )
    held = _HELD.pop(id(pipe))
    held.contexts.close()
    return held.seen


def close_left() -> None:
    """Closes what blocks of former runs opened, of any pipeline, that ended before the block that
    does so."""
    for key, held in list(_HELD.items()):
        if _goes_on(held) or _HELD.pop(key, None) is None:  # another thread came first
            continue
        with suppress(_NotClosedError):
            held.contexts.__exit__(_NotClosedError, _NotClosedError(), None)


def _goes_on(held: _Held) -> bool:
    if held.thread == get_ident():
        return state_of_run(held.pipe) is held.state
    return is_running(held.pipe, held.thread)
