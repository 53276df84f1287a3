"""Attributes with a default."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Default(Generic[Value]):
    """An attribute that a subclass replaces by a field, a class attribute or a property."""

    def __init__(self, value: Callable[[Any], Value]) -> None:
        self.value = value

    def __get__(self, instance: object, owner: type | None = None) -> Value:
        return self.value(instance)
