"""What objectives see in one step, and what a recording returns."""

import html
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.between import Direction
from attncontrol.attention.sites import Site
from attncontrol.axes import Means, Recorded
from attncontrol.errors import CouplingError, WordError
from attncontrol.maps.step import mean_of
from attncontrol.prompts.tokens import Span, Token


@dataclass(eq=False)
class AttentionMaps:
    """Recorded attention, filled while the pipeline runs; ``save`` and ``load`` keep it.

    ``layers`` maps site names to tensors [batch branch step heads height width token] on the CPU,
    of videos [batch branch step heads frames height width token]. A reduced axis has length 1: the
    mean over steps and heads is kept unless asked otherwise. ``spans[b]`` name the token axis for
    image b: a word asked for (the probability of attending to any of its tokens: their sum), or
    every token of its text sequence ``tokens[b]``. ``steps``, ``timesteps`` and ``sigmas`` (the
    scheduler's own, or noise per signal) are those of the recorded steps. ``about`` says what ran:
    pipeline, model, scheduler, guidance, seeds and versions. ``pictures`` are the user's to set:
    the pictures that were made.
    """

    layers: Mapping[str, Recorded] = field(default_factory=dict)
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
    about: dict[str, Any] = field(default_factory=dict)
    pictures: Sequence[Any] = ()

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The names along the token axis, for every image."""
        return tuple(tuple(span.text for span in of_image) for of_image in self.spans)

    def __getitem__(self, word: str) -> "ShownMap":
        """[batch height width]: mean over layers, heads and steps of the first branch, on the
        finest grid. Videos: with frames.

        ``.show()`` draws it over the pictures.
        """
        mean = self.mean()
        missing = [labels for labels in self.labels if word not in labels]
        if missing:
            raise WordError(f"{word!r} was not recorded; recorded are: {', '.join(missing[0])}")
        index = torch.tensor([labels.index(word) for labels in self.labels])
        found = mean[torch.arange(len(index)), ..., index].as_subclass(ShownMap)
        found.maps, found.word = self, word
        return found

    def mean(self, branch: str | None = None) -> Means:
        """[batch height width token], of videos [batch frames height width token]: mean over
        layers, heads and steps.

        ``branch`` is the first one unless given.
        """
        if not self.layers:
            raise CouplingError(
                "nothing is recorded yet; the maps are complete when the record(...) block ends"
            )
        b = 0 if branch is None else self.branches.index(branch)
        return mean_of([maps[:, b].mean((1, 2)) for maps in self.layers.values()], len(self.layers))

    @property
    def nbytes(self) -> int:
        return sum(maps.numel() * maps.element_size() for maps in self.layers.values())

    def to_npz(self, file: Path | str) -> Path:
        """See ``export.arrays``, for this and the next three."""
        from attncontrol.export import arrays

        return arrays.to_npz(self, file)

    def to_zarr(self, folder: Path | str) -> Path:
        from attncontrol.export import arrays

        return arrays.to_zarr(self, folder)

    def to_xarray(self) -> Any:
        from attncontrol.export import arrays

        return arrays.to_xarray(self)

    def to_dataframe(self) -> Any:
        from attncontrol.export import arrays

        return arrays.to_dataframe(self)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(maps.shape)}" for name, maps in self.layers.items())
        return f"AttentionMaps({len(self.prompts)} images, {len(self.timesteps)} steps, {self.nbytes / 1e6:.1f} MB; {shapes})"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows, or a viewer that takes no HTML."""
        from attncontrol.export.sheets import drawable, words_sheet

        return _png(words_sheet(self)) if drawable(self) else None

    def _repr_html_(self) -> str | None:
        """The picture, and below it what was recorded."""
        picture = self._repr_png_()
        if picture is None:
            return None
        source = f"data:image/png;base64,{b64encode(picture).decode()}"
        return (
            f'<img src="{source}"><pre style="white-space:pre-wrap">{html.escape(repr(self))}</pre>'
        )


class ShownMap(Tensor):
    """[batch *frames height width] of one word: a tensor that can show itself. What is computed or
    saved of it is a plain one."""

    __torch_function__: Any = torch._C._disabled_torch_function_impl
    maps: AttentionMaps
    word: str

    def show(self) -> Any:
        """A PIL image: the map over the picture, for every image of the batch. Raises
        UnsupportedError for what ``write_pictures`` does not draw."""
        from attncontrol.export.sheets import word_sheet

        return word_sheet(self.maps, self.word)

    def _repr_png_(self) -> bytes | None:
        from attncontrol.export.sheets import drawable

        return _png(self.show()) if drawable(self.maps) else None

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


def _png(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()
