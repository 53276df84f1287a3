"""Whose call it is: the pipeline that is running, in this thread or in another."""

import functools
import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def caller() -> Any | None:
    """The pipeline whose ``__call__`` is running in this thread, the innermost one; else None."""
    return _owner(sys._getframe(1))


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


def observe(
    owner: Any, name: str, observer: Callable[[dict[str, Any]], None]
) -> Callable[[], None]:
    """Shows every call of a method of one object to ``observer``, by name and before it happens.

    Observers may change the arguments. Returns what ends this. All observers of a method share one
    wrapper, which the last to leave takes off; if somebody has put something over it, it stays and
    only passes calls on.
    """
    wrapper = vars(owner).get(name)
    if not hasattr(wrapper, "observers"):
        wrapper = _wrapper(owner, name)
        setattr(owner, name, wrapper)
    wrapper.observers.append(observer)
    return functools.partial(_leave, owner, name, wrapper, observer)


def _wrapper(owner: Any, name: str) -> Any:
    method = getattr(owner, name)
    observers: list[Callable[[dict[str, Any]], None]] = []
    signature = inspect.signature(method)

    @functools.wraps(method)  # pipelines inspect the signature of scheduler.step
    def observing(*args: Any, **kwargs: Any) -> Any:
        if not observers:
            return method(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        for observer in tuple(observers):
            observer(bound.arguments)
        return method(*bound.args, **bound.kwargs)

    observing.observers = observers  # type: ignore[attr-defined]  # how later ones find it
    observing.previous = vars(owner).get(name)  # type: ignore[attr-defined]
    return observing


def _leave(owner: Any, name: str, wrapper: Any, observer: Any) -> None:
    wrapper.observers.remove(observer)
    if wrapper.observers or vars(owner).get(name) is not wrapper:
        return
    if wrapper.previous is None:
        delattr(owner, name)
    else:
        setattr(owner, name, wrapper.previous)
