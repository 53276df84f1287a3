"""The values of a complete recording."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from attncontrol.attention.between import Direction
from attncontrol.attention.sites import Site
from attncontrol.axes import Recorded
from attncontrol.maps.taken import TakenOver
from attncontrol.prompts.tokens import Span, Token

Shape = tuple[int, ...]


class Unread(Mapping[str, Tensor]):
    """Layers that know their shapes before they are read."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, Shape]: ...

    @property
    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Where they are."""


@dataclass(frozen=True)
class BranchText:
    """What one branch reads: the prompt and the text sequence of every image, and what its token
    axis holds."""

    prompts: tuple[str, ...] = ()
    tokens: tuple[tuple[Token, ...], ...] = ()
    spans: tuple[tuple[Span, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Recording:
    """All that was recorded; ``AttentionMaps`` says what each value is. ``others`` are the texts of
    branches after the first."""

    layers: Mapping[str, Recorded]
    sites: Mapping[str, Site] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    tokens: tuple[tuple[Token, ...], ...] = ()
    spans: tuple[tuple[Span, ...], ...] = ()
    branches: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    timesteps: tuple[float, ...] = ()
    sigmas: tuple[float | None, ...] = ()
    direction: Direction = "image->text"
    reductions: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, BranchText] = field(default_factory=dict)
    partial: str | None = None
    taken: TakenOver | None = None

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of the layers, by site; those on disk are not read for it."""
        if isinstance(self.layers, Unread):
            return self.layers.shapes
        return {name: tuple(of_layer.shape) for name, of_layer in self.layers.items()}
