"""Observers of methods and modules, which copies of these leave behind."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attncontrol.errors import CouplingError
from attncontrol.running.eager import uncompiled

Observer = Callable[[dict[str, Any]], None]
Changer = Callable[[Any], Any]


def observe(
    owner: Any, name: str, observer: Observer, after: Changer | None = None
) -> Callable[[], None]:
    """Shows every call of a method of one object to ``observer``, by name and before it happens.

    Observers may change the arguments, and ``after`` what the method returned. Returns what ends
    this. All observers of a method share one stand-in, which the last to leave takes off; if
    somebody has put something over it, it stays and only passes calls on.
    """
    owner = uncompiled(owner)
    method = vars(owner).get(name)
    if not isinstance(method, _Observed):
        method = _Observed(owner, name)
        setattr(owner, name, method)
    both = observer, after
    method.observers.append(both)
    return functools.partial(method.leave, both)


@contextmanager
def replaced(owner: Any, name: str, made: Changer) -> Iterator[None]:
    """What ``made`` makes of a method of one object stands for it until the block ends; observers
    of the method see it as the method itself."""
    observed = vars(owner).get(name)
    if isinstance(observed, _Observed):
        owner, name = observed, "method"
    previous = vars(owner).get(name)
    setattr(owner, name, made(getattr(owner, name)))
    try:
        yield
    finally:
        if previous is None:
            delattr(owner, name)
        else:
            setattr(owner, name, previous)


class _Observed:
    """Stands for a method, whose signature it shows: pipelines inspect that of ``scheduler.step``.

    Arguments have the names that the class gives them, whatever was put over its method.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.method, self.previous = getattr(owner, name), vars(owner).get(name)
        functools.update_wrapper(self, self.method, updated=())
        self.owner, self.name = owner, name
        self.observers: list[tuple[Observer, Changer | None]] = []
        self.signature = inspect.signature(of_class(owner, name) or self.method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        observers = tuple(self.observers)
        if not observers:
            return self.method(*args, **kwargs)
        bound = self.signature.bind(*args, **kwargs)
        for observer, _ in observers:
            observer(bound.arguments)
        result = self.method(*bound.args, **bound.kwargs)
        for _, after in observers:
            result = result if after is None else after(result)
        return result

    def leave(self, both: tuple[Observer, Changer | None]) -> None:
        self.observers.remove(both)
        if self.observers or vars(self.owner).get(self.name) is not self:
            return
        if self.previous is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.previous)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the owner has its own method: pipelines copy schedulers, and their vars."""
        copied = memo.get(id(self.owner))
        if copied is None:
            return self
        if self.previous is not None:
            return copy.deepcopy(self.previous, memo)
        return of_class(copied, self.name)


def of_class(owner: Any, name: str) -> Any:
    """The method that the class of an object gives it, None if it gives none."""
    found = inspect.getattr_static(type(owner), name, None)
    return None if found is None else found.__get__(owner, type(owner))


def inputs_of(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a module was called with, by the names of its class."""
    return dict(inspect.signature(of_class(module, "forward")).bind(*args, **kwargs).arguments)


def named(denoiser: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """By the names of the class, whatever was put over its method. Raises CouplingError."""
    known = inspect.signature(of_class(denoiser, "forward")).parameters.values()
    parameters = [each.name for each in known if each.kind == each.POSITIONAL_OR_KEYWORD]
    if len(args) > len(parameters):
        raise CouplingError(
            f"the denoiser got {len(args)} arguments without names, and {type(denoiser).__name__} "
            f"names {len(parameters)}: call it as its class declares"
        )
    return dict(zip(parameters, args, strict=False)) | dict(kwargs)


class Hook:
    """A hook of a module; in copies of the module it does nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __deepcopy__(self, _: dict[int, Any]) -> Any:
        return _nothing


def _nothing(*_: Any, **__: Any) -> None: ...
