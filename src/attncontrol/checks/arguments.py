"""What an annotation allows, in words and as a check of functions and of frozen dataclasses.

    @checked
    def perturb(pipe: Any, *, rescale: Share = 0.0): ...

``Annotated[float, Such("a number above 1", lambda x: x > 1)]`` narrows a type; with WordError
beside it that is raised instead of SettingError. Floats are finite unless ``Such`` says otherwise,
never NaN; integers are numbers, bools are not; lists may stand for tuples, strings for no sequence.
"""

import functools
import inspect
import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from attncontrol.errors import SettingError, WordError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Such:
    """Which values of a type are meant, in words and as a test."""

    text: str
    holds: Callable[[Any], bool] = lambda _: True


Share = Annotated[float, Such("a share between 0 and 1", lambda x: 0 <= x <= 1)]
NotNegative = Annotated[float, Such("a number of at least 0", lambda x: 0 <= x < math.inf)]
Positive = Annotated[float, Such("a number above 0", lambda x: 0 < x < math.inf)]
Number = Annotated[float, Such("a number")]  # infinity too
Shares = Annotated[
    tuple[Share, Share],
    Such("two shares of the run, such as (0.0, 0.5)", lambda of: of[0] <= of[1]),
]
SomeWords = Annotated[
    Sequence[str], Such("a non-empty list such as ['cat', 'frog']", len), WordError
]
Index = Annotated[int, Such("an integer of at least 0", lambda x: x >= 0)]
Count = Annotated[int, Such("an integer of at least 1", lambda x: x >= 1)]
Bytes = Annotated[float, Such("a number of bytes", lambda x: x >= 0)]


class Unchecked:
    """In ``Annotated``: whoever takes the value says what is wrong with it."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Checks the arguments of every call, but for those without annotation or of type Any."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # Python's own says it better
            return function(*args, **kwargs)
        for name, hint in _hints(function).items():
            one = signature.parameters.get(name)
            if one and name in given and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                check(name, given[name], hint)
        return function(*args, **kwargs)

    return call


def check_fields(made: Any) -> None:
    """Checks the fields of a dataclass, for its ``__post_init__``; defaults are right. What is
    wrong in a field ``words`` is a WordError."""
    kind: Any = type(made)
    hints = _hints(kind)
    for each in fields(made) if hasattr(made, "__dataclass_fields__") else ():
        value, hint = getattr(made, each.name), hints.get(each.name, Any)
        if each.default is MISSING or value is not each.default:
            hint = Annotated[hint, WordError] if each.name == "words" else hint
            check(f"{kind.__name__}.{each.name}", value, hint)


def check(name: str, value: Any, hint: Any) -> None:
    """Raises SettingError, or WordError if the annotation has it beside its type."""
    if fits(value, hint):
        return
    text = f"{name} must be {in_words(hint)}, not {shown(value)}"
    if WordError in _extras(hint):
        raise WordError(text)
    raise SettingError(text)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation allows; what is not understood is allowed."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or Unchecked in _extras(hint):
        return True
    if origin is Annotated:
        return (_is_number(value) if inner[0] is float else fits(value, inner[0])) and all(
            _holds(each, value) for each in _extras(hint) if isinstance(each, Such)
        )
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if hint in (float, int, bool):
        return _is_plain(value, hint)
    if hint in (None, NoneType):
        return value is None
    if origin is tuple:
        return _fits_tuple(value, inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        pairs = value.items() if isinstance(value, Mapping) else ()
        right = all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in pairs)
        return isinstance(value, Mapping) and right
    if isinstance(origin, type) and issubclass(origin, Collection):
        right = isinstance(value, origin) and not isinstance(value, str | bytes | Mapping)
        return right and all(fits(each, inner[0]) for each in value)
    if origin is Callable:
        return takes(value, len(inner[0])) if isinstance(inner[0], list) else callable(value)
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many values; of builtins that is not known."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:  # nor is there a signature of what is no function
        return False
    except ValueError:
        pass
    return True


def in_words(hint: Any) -> str:
    """What an annotation allows."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        texts = [each.text for each in _extras(hint) if isinstance(each, Such)]
        return texts[0] if texts else in_words(inner[0])
    if origin in (Union, UnionType):
        parts = list(dict.fromkeys(map(in_words, inner)))
        return " or ".join([", ".join(parts[:-1]), parts[-1]]) if parts[1:] else parts[0]
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple and inner[-1] is not ...:
        return f"({', '.join(map(in_words, inner))})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping from {in_words(inner[0])} to {in_words(inner[1])}"
    if isinstance(origin, type) and issubclass(origin, Collection):
        return f"a list of which each is {in_words(inner[0])}"
    plain = {float: "a finite number", int: "an integer", bool: "True or False", str: "a string"}
    if hint in (None, NoneType):
        return "None"
    if origin is Callable:
        count = len(inner[0]) if isinstance(inner[0], list) else 0
        return "a function" + (f" of {count} argument{'s' * (count > 1)}" if count else "")
    return plain.get(hint, getattr(hint, "__name__", "it"))


def in_bytes(size: float | int) -> str:
    """A number of bytes in the largest unit of which there is one."""
    power = max((k for k in range(4) if size >= 1024**k), default=0)
    number, unit = size / 1024**power, ("bytes", "KiB", "MiB", "GiB")[power]
    return f"{number:.1f} {unit}" if power else f"{number:.0f} bytes"


def brief(path: Any) -> str:
    """A path, without its middle where it is longer than those that people name."""
    text = str(path)
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-190:]}"


def shown(value: Any) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _extras(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _holds(such: Such, value: Any) -> bool:
    try:
        return bool(such.holds(value))
    except OverflowError:  # an integer that no float holds
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value == value


def _is_plain(value: Any, kind: type) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    return _is_number(value) and -math.inf < value < math.inf


def _fits_tuple(value: Any, inner: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple | list):
        return False
    if inner[-1:] == (...,):
        return all(fits(each, inner[0]) for each in value)
    return len(value) == len(inner) and all(map(fits, value, inner))


@functools.cache
def _hints(of: Hashable) -> Mapping[str, Any]:
    """The annotations of a function or class; none where they name what is not there."""
    try:
        return get_type_hints(of, include_extras=True)
    except (NameError, TypeError):
        return {}
