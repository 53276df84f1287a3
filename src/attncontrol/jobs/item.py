"""One picture of a job: all that decides how it looks, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from attncontrol.batch.edit_names import AUTO, editing
from attncontrol.batch.method_names import CHANGES
from attncontrol.batch.settings import (
    Box,
    Exact,
    Fraction,
    Head,
    Pixels,
    Scale,
    Seed,
    Share,
    Step,
    Text,
    Words,
)
from attncontrol.export.names import readable

_OF_THE_SOURCE = (
    "seed", "model", "negative", "steps", "guidance", "height", "width", "dtype", "lora"
)  # fmt: skip
_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=True)


Dtype = Annotated[str, Field(pattern="^(float32|float16|bfloat16)$")]


class Adapter(Exact):
    """A LoRA: a folder, a file or a hub id, and how much of it."""

    path: Text
    scale: Annotated[float, Field(ge=-10, le=10)] = 1.0


class Item(Exact):
    """A picture as it is asked for. None is what the model or the method does by itself.

    ``method`` is "plain", the name of a loss ("auto"), of an edit ("p2p@0.6+auto"), "regions",
    "remove", "move", or "module:Name". An edit takes from the picture of ``source`` of the same
    seed, model and size, which is made too. ``words`` are the groups of ``method``; ``record``
    those whose maps are kept. ``parameters`` are fields of the method by their names, those of its
    descent behind "descent.".
    """

    prompt: Text
    seed: Seed = 0
    model: Text = "sprites"
    method: Text = "plain"
    words: Annotated[list[Words], Field(min_length=1)] | None = None
    boxes: dict[Text, Box] = Field(default_factory=dict)
    source: Text | None = None
    regions: dict[Text, Box] = Field(default_factory=dict)
    remove: Text | None = None
    move: tuple[Text, Step, Step] | None = None
    step_size: Annotated[float, Field(ge=0)] | Share | None = None
    parameters: dict[Text, Any] = Field(default_factory=dict)
    heads: Annotated[list[Head], Field(min_length=1)] | None = None
    heads_scale: Scale = 3.0
    u: Fraction = 1.0
    negative: Annotated[str, Field(max_length=10_000)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Scale | None = None
    height: Pixels | None = None
    width: Pixels | None = None
    dtype: Dtype = "float32"
    lora: list[Adapter] = Field(default_factory=list)
    record: Words | None = None

    @cached_property
    def mark(self) -> str:
        """The same for equal items alone, in every version that means the same by them."""
        told = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(_JSON.encode(told).encode()).hexdigest()[:16]

    @cached_property
    def original(self) -> "Item":
        """The picture of ``source``: a plain one, but where ``auto`` steers beside an edit, which
        moves its source alike."""
        same = {name: getattr(self, name) for name in _OF_THE_SOURCE}
        if self.method not in CHANGES and editing(self.method)[1]:
            same |= {"method": AUTO, "step_size": self.step_size, "parameters": self.parameters}
        return Item(prompt=str(self.source), **same)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> "Item":
        """Checked anew, and without what is kept of this one, such as its ``mark``."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**((deepcopy(fields) if deep else fields) | dict(update or {})))

    @property
    def name(self) -> str:
        """Of its files: what can be read of the prompt, and ``mark``."""
        return f"{readable(self.prompt)}-{self.mark}"
