"""Whose call it is: the pipeline that is running, in this thread or in another."""

import sys
import threading
from types import FrameType
from typing import Any


def caller() -> Any | None:
    """The pipeline whose ``__call__`` is running in this thread, the innermost one; else None."""
    return _owner(sys._getframe(1))


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


def _owner(frame: FrameType | None) -> Any | None:
    while frame is not None:
        pipe = _pipeline_of(frame)
        if pipe is not None:
            return pipe
        frame = frame.f_back
    return None


def _pipeline_of(frame: FrameType) -> Any | None:
    if frame.f_code.co_name != "__call__":
        return None
    owner = frame.f_locals.get("self")
    return owner if hasattr(type(owner), "components") and hasattr(owner, "scheduler") else None
