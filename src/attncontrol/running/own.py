"""Whose call it is: the pipeline that is running, in this thread or in another."""

import functools
import sys
import threading
from types import FrameType
from typing import Any


def caller() -> Any | None:
    """The pipeline whose ``__call__`` is running in this thread, the innermost one; None outside,
    and in a callback of the user, whose calls are not the pipeline's own."""
    frame: FrameType | None = sys._getframe(1)
    inner = None
    while frame is not None:
        pipe = _pipeline_of(frame)
        if pipe is not None:
            return None if inner is not None and _is_callback(inner, frame) else pipe
        frame, inner = frame.f_back, frame
    return None


def state_of_run(pipe: Any) -> Any | None:
    """The state that the blocks of a modular pipeline work on, of its call that is running in this
    thread; None outside."""
    return argument_of_run(pipe, "state")


def argument_of_run(pipe: Any, name: str) -> Any | None:
    """What the call of a pipeline that is running in this thread was given; None outside."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _pipeline_of(frame) is not pipe:
        frame = frame.f_back
    return None if frame is None else frame.f_locals.get(name)


def is_running_elsewhere(pipe: Any) -> bool:
    """Whether another thread is inside a call of the pipeline."""
    others = set(sys._current_frames()) - {threading.get_ident()}
    return any(is_running(pipe, thread) for thread in others)


def is_running(pipe: Any, thread: int) -> bool:
    """Whether a thread is inside a call of the pipeline."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if _pipeline_of(frame) is pipe:
            return True
        frame = frame.f_back
    return False


def _pipeline_of(frame: FrameType) -> Any | None:
    if frame.f_code.co_name != "__call__":
        return None
    owner = frame.f_locals.get("self")
    return owner if hasattr(type(owner), "components") and hasattr(owner, "scheduler") else None


def _is_callback(frame: FrameType, of_pipeline: FrameType) -> bool:
    """Whether the frame is that of a callback which the pipeline was given."""
    given = of_pipeline.f_locals
    return any(_runs(given.get(name), frame) for name in ("callback_on_step_end", "callback"))


def _runs(function: Any, frame: FrameType) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    function = function if hasattr(function, "__code__") else type(function).__call__
    return getattr(function, "__code__", None) is frame.f_code
