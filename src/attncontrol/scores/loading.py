"""Models of transformers from a folder or the hub, and what scores share of a call."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from PIL import Image

from attncontrol.checks.arguments import brief
from attncontrol.errors import ModelError

BATCH = 16
T = TypeVar("T")


def loaded(classes: dict[str, Any], model: str, device: str, option: str) -> tuple[Any, Any]:
    """A model, by the class of its kind ("clip"), and its processor. Raises ModelError where there
    is none, or where it is of another kind or lacks weights, which would be random ones."""
    from transformers import AutoConfig, AutoProcessor

    here = {"local_files_only": True} if Path(model).exists() else {}
    try:
        kind = AutoConfig.from_pretrained(model, **here).model_type
        if kind not in classes:
            raise ModelError(
                f"{brief(model)} is a model of kind {kind!r}, and {option} takes "
                f"{', '.join(classes)}"
            )
        network, told = classes[kind].from_pretrained(model, output_loading_info=True, **here)
        processor = AutoProcessor.from_pretrained(model, **here)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, ModelError):
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{brief(model)} cannot be loaded: {first} Give {option} a local folder or a hub id "
            f"of a model of kind {', '.join(classes)}"
        ) from error
    if missing := sorted(told["missing_keys"]):
        raise ModelError(
            f"{brief(model)} lacks {len(missing)} weights of {type(network).__name__}, such as "
            f"{missing[0]}; give {option} one that has them"
        )
    return network.to(device).eval(), processor


class OfLast(Generic[T]):
    """What was made of pictures, kept for the next score of the same."""

    def __init__(self, make: Callable[[Sequence[Image.Image]], T]):
        self._make = make
        self._kept: tuple[Sequence[Image.Image], T] | None = None

    def __call__(self, pictures: Sequence[Image.Image]) -> T:
        if self._kept is None or self._kept[0] is not pictures:
            self._kept = pictures, self._make(pictures)
        return self._kept[1]


def parts(values: Sequence[T], size: int = BATCH) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
