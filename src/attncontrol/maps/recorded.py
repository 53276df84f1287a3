"""What a recording returns."""

import html
import io
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from attncontrol.attention.between import Direction
from attncontrol.attention.sites import Site
from attncontrol.axes import Means, Recorded, WordMap
from attncontrol.errors import CouplingError, RecordError, SettingError, WordError
from attncontrol.maps import draw
from attncontrol.maps.functional import finest, grid_names, mean_where_known
from attncontrol.maps.recording import BranchText, Recording, Shape
from attncontrol.prompts.tokens import Span, Token


class AttentionMaps:
    """Recorded attention; ``save`` and ``load`` keep it.

    ``record`` fills it when its block ends. Until then only ``pictures`` can be read and set;
    everything else raises CouplingError. Afterwards nothing but ``pictures`` changes: ``replace``
    makes another one. All values are named, as in ``AttentionMaps(layers=..., prompts=...)``.

        with record(pipe, ["cat"]) as maps:
            maps.pictures = pipe("a cat").images
        maps["cat"]  # [image height width]
    """

    pictures: Sequence[Any]
    """The pictures that were made, PIL images; yours to set, also inside the block."""

    def __init__(self, *, pictures: Sequence[Any] = (), **values: Any) -> None:
        self._recording = Recording(**values) if values else None
        self.pictures = pictures

    def _complete(self, recording: Recording) -> None:
        """Once, by whoever made this object without values."""
        if self._recording is not None:
            raise CouplingError("these maps are complete already; a recording is made once")
        self._recording = recording

    @property
    def _known(self) -> Recording:
        if self._recording is None:
            raise CouplingError(
                "nothing is recorded yet; the maps are complete when the record(...) block ends"
            )
        return self._recording

    @property
    def layers(self) -> Mapping[str, Recorded]:
        """Site names to tensors [image branch step head height width token] on the CPU, of videos
        [image branch step head frame height width token].

        An axis that was averaged has length 1: steps and heads, unless they were kept. Steps in
        which a site or a branch did not run are NaN; means leave them out.
        """
        return self._known.layers

    @property
    def sites(self) -> Mapping[str, Site]:
        """Where the layers are in the model, and how many heads run there."""
        return self._known.sites

    @property
    def prompts(self) -> tuple[str, ...]:
        """One per image: what the first branch reads, so the negative prompts of "uncond" alone.
        Where the text encoders read different prompts it is these one after another, with " | " in
        between; empty where it is not known, as with ``prompt_embeds``."""
        return self._known.prompts

    @property
    def tokens(self) -> tuple[tuple[Token, ...], ...]:
        """The text sequence of every image, empty where it is not known."""
        return self._known.tokens

    @property
    def spans(self) -> tuple[tuple[Span, ...], ...]:
        """What the token axis of every image holds: a word asked for (the probability of attending
        to any of its tokens: their sum), or every token of its text sequence. A word that the text
        does not have has no positions, and its maps are NaN."""
        return self._known.spans

    @property
    def branches(self) -> tuple[str, ...]:
        """ "cond", "uncond"."""
        return self._known.branches

    @property
    def steps(self) -> tuple[int, ...]:
        """Indices of the recorded steps, from 0."""
        return self._known.steps

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The scheduler's, of the recorded steps."""
        return self._known.timesteps

    @property
    def sigmas(self) -> tuple[float | None, ...]:
        """The scheduler's own, or noise per signal, of the recorded steps; None if not known."""
        return self._known.sigmas

    @property
    def direction(self) -> Direction:
        """From the queries to the keys."""
        return self._known.direction

    @property
    def reductions(self) -> tuple[str, ...]:
        """What was done to the probabilities, in order."""
        return self._known.reductions

    @property
    def about(self) -> Mapping[str, Any]:
        """What ran: pipeline, model, scheduler, guidance, seeds and versions."""
        return self._known.about

    @property
    def others(self) -> Mapping[str, BranchText]:
        """What the branches after the first read; see ``of``."""
        return self._known.others

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The names along the token axis, for every image."""
        return tuple(tuple(span.text for span in of_image) for of_image in self.spans)

    @property
    def _words(self) -> list[str]:
        return [*dict.fromkeys(label for labels in self.labels for label in labels)]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of the layers, by site."""
        return self._known.shapes

    @property
    def nbytes(self) -> int:
        """In memory, as float32."""
        return 4 * sum(map(math.prod, self.shapes.values()))

    @property
    def drawable(self) -> bool:
        """Attention of pictures, not of videos, to text."""
        return self.direction == "image->text" and all(len(s) == 7 for s in self.shapes.values())

    def replace(self, **values: Any) -> "AttentionMaps":
        """The same with other values."""
        changed = AttentionMaps(pictures=values.pop("pictures", self.pictures))
        changed._complete(replace(self._known, **values))
        return changed

    def of(self, branch: str) -> "AttentionMaps":
        """One branch alone, with its own prompts, tokens and words. Raises SettingError if it was
        not recorded."""
        b = self._branch(branch)
        text = vars(self.others[branch]) if branch in self.others else {}
        layers = {name: of_layer[:, b : b + 1] for name, of_layer in self.layers.items()}
        return self.replace(layers=layers, branches=(branch,), others={}, **text)

    def __getitem__(self, word: str | int) -> WordMap:
        """[image height width], of videos [image frame height width]: ``mean`` of a word in the
        first branch; NaN for images that do not have it. Raises WordError if none has it."""
        name = str(word)
        if name not in self._words:
            raise WordError(f"{name!r} was not recorded; recorded are: {', '.join(self._words)}")
        each = zip(self.mean(), self.labels, strict=True)
        maps = [of[..., w.index(name)] if name in w else of[..., 0] * torch.nan for of, w in each]
        return torch.stack(maps)

    def mean(self, branch: str | None = None) -> Means:
        """[image height width token], of videos [image frame height width token]: mean over layers,
        heads and steps, on the finest grid. ``branch`` is the first one unless given; the token
        axis of another one holds what ``of(branch).labels`` says. Raises SettingError if it was not
        recorded."""
        b = 0 if branch is None else self._branch(branch)
        return mean_where_known([maps[:, b].nanmean((1, 2)) for maps in self.layers.values()])

    def _branch(self, branch: str) -> int:
        if branch not in self.branches:
            raise SettingError(f"branch {branch!r} was not recorded, but {self.branches}")
        return self.branches.index(branch)

    def show(self, word: str | int) -> Image.Image:
        """The map of a word over the picture of every image, side by side, each from its minimum
        to its maximum. Raises WordError; RecordError for videos and other directions than
        image->text."""
        self.require_drawable()
        grounds = [self.ground(i) for i in range(len(self.prompts))]
        return draw.word_sheet(grounds, self[word], str(word))

    def sheet(self, image: int = 0) -> Image.Image:
        """The picture of one image, and over it the map of every word. Raises RecordError as
        ``show``."""
        self.require_drawable()
        pictures = [self.ground(image)] if len(self.pictures) else []
        return draw.words_sheet(
            pictures, self.ground(image), self.mean()[image], self.labels[image],
            f"{self.prompts[image]}: mean over layers, heads and steps; "
            "each map from its minimum to its maximum",
        )  # fmt: skip

    def ground(self, image: int) -> Image.Image:
        """What maps are drawn on: the picture, or gray in the shape of the finest grid."""
        if len(self.pictures):
            return self.pictures[image]
        return draw.plane(*finest(shape[-3:-1] for shape in self.shapes.values()))

    def require_drawable(self) -> None:
        if not self.drawable:
            raise RecordError(
                f"pictures are drawn of the attention of pictures to text, image->text; "
                f"not of {self.direction} or videos"
            )

    def __repr__(self) -> str:
        if self._recording is None:
            return "AttentionMaps(not complete before the record(...) block ends)"
        words = self._words
        shown = ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")
        return (
            f"AttentionMaps({len(self.prompts)} images, {len(self.steps)} steps, "
            f"{len(self.shapes)} sites on {grid_names(s[-3:-1] for s in self.shapes.values())}, "
            f"{self.direction}: {shown}; {self.nbytes / 1e6:.1f} MB)"
        )

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows, or a viewer that takes no HTML."""
        if self._recording is None or not self.drawable:
            return None
        stream = io.BytesIO()
        self.sheet().save(stream, "png")
        return stream.getvalue()

    def _repr_html_(self) -> str | None:
        """The picture, and below it what was recorded."""
        picture = self._repr_png_()
        if picture is None:
            return None
        source = f"data:image/png;base64,{b64encode(picture).decode()}"
        said = html.escape(repr(self))
        return f'<img src="{source}"><pre style="white-space:pre-wrap">{said}</pre>'
