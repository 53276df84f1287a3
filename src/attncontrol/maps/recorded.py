"""What a recording returns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from attncontrol.attention.between import Direction
from attncontrol.attention.sites import Site
from attncontrol.axes import Means, Recorded, WordMap
from attncontrol.errors import CouplingError, RecordError, SettingError, WordError
from attncontrol.maps import shown
from attncontrol.maps.functional import mean_where_known
from attncontrol.maps.recording import BranchText, Recording, Shape
from attncontrol.maps.taken import TakenOver
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

    def __init__(self, *, pictures: Sequence[Any] = (), **values: Any) -> None:
        self._recording: Recording | None = None
        self._pictures = pictures
        if values:
            self._complete(Recording(**values))

    def _complete(self, recording: Recording) -> None:
        """Once, by whoever made this object without values."""
        if self._recording is not None:
            raise CouplingError("these maps are complete already; a recording is made once")
        if not recording.layers:
            raise CouplingError("nothing is recorded: none of the sites ran in the recorded steps")
        self._recording = recording
        self.pictures = self._pictures  # refused, if at all, when the maps are there

    @property
    def pictures(self) -> Sequence[Any]:
        """The pictures that were made, PIL images, one for each prompt; yours to set, also inside
        the block, at whose end they are checked. Raises SettingError for others."""
        return self._pictures

    @pictures.setter
    def pictures(self, pictures: Sequence[Any]) -> None:
        if self._recording is not None:
            shown.require_pictures(pictures, len(self.prompts))
        self._pictures = pictures

    @property
    def recording(self) -> Recording:
        """All values but the pictures."""
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
        return self.recording.layers

    @property
    def sites(self) -> Mapping[str, Site]:
        """Where the layers are in the model, and how many heads run there."""
        return self.recording.sites

    @property
    def prompts(self) -> tuple[str, ...]:
        """One per image: what the first branch reads, so the negative prompts of "uncond" alone.
        Where the text encoders read different prompts it is these one after another, with " | " in
        between; empty where it is not known, as with ``prompt_embeds``."""
        return self.recording.prompts

    @property
    def tokens(self) -> tuple[tuple[Token, ...], ...]:
        """The text sequence of every image, empty where it is not known."""
        return self.recording.tokens

    @property
    def spans(self) -> tuple[tuple[Span, ...], ...]:
        """What the token axis of every image holds: a word asked for (the probability of attending
        to any of its tokens: their sum), or every token of its text sequence. A word that the text
        does not have has no positions, and its maps are NaN."""
        return self.recording.spans

    @property
    def branches(self) -> tuple[str, ...]:
        """ "cond", "uncond", "reference"."""
        return self.recording.branches

    @property
    def steps(self) -> tuple[int, ...]:
        """Indices of the recorded steps, from 0."""
        return self.recording.steps

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The scheduler's, of the recorded steps."""
        return self.recording.timesteps

    @property
    def sigmas(self) -> tuple[float | None, ...]:
        """The scheduler's own, or noise per signal, of the recorded steps; None if unknown."""
        return self.recording.sigmas

    @property
    def direction(self) -> Direction:
        """From the queries to the keys."""
        return self.recording.direction

    @property
    def reductions(self) -> tuple[str, ...]:
        """What was done to the probabilities, in order."""
        return self.recording.reductions

    @property
    def about(self) -> Mapping[str, Any]:
        """What ran: pipeline, model, scheduler, guidance, seeds and versions."""
        return self.recording.about

    @property
    def partial(self) -> str | None:
        """What is missing where a run was stopped; None of a whole record."""
        return self.recording.partial

    @property
    def taken(self) -> TakenOver | None:
        """What edited images have of their sources; None where no edit had one."""
        return self.recording.taken

    @property
    def files(self) -> tuple[Path, ...]:
        """What the layers are read from; empty if they are in memory."""
        return getattr(self.recording.layers, "files", ())

    @property
    def others(self) -> Mapping[str, BranchText]:
        """What the branches after the first read; see ``of``."""
        return self.recording.others

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The names along the token axis, for every image."""
        return tuple(tuple(span.text for span in of_image) for of_image in self.spans)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of the layers, by site."""
        return self.recording.shapes

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
        changed._complete(replace(self.recording, **values))
        return changed

    def of(self, branch: str) -> "AttentionMaps":
        """One branch alone, with its own prompts, tokens and words. Raises SettingError if it was
        not recorded."""
        b = self._branch(branch)
        text = vars(self.others[branch]) | {"taken": None} if branch in self.others else {}
        layers = {name: of_layer[:, b : b + 1] for name, of_layer in self.layers.items()}
        return self.replace(layers=layers, branches=(branch,), others={}, **text)

    def __getitem__(self, word: str | int) -> WordMap:
        """[image height width], of videos [image frame height width]: ``mean`` of a word in the
        first branch; NaN for images that do not have it. Raises WordError if none has it."""
        name = str(word)
        if name not in (words := shown.words(self)):
            raise WordError(f"{name!r} was not recorded; recorded are: {', '.join(words)}")
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
        return shown.word_sheet(self, word)

    def sheet(self, image: int = 0) -> Image.Image:
        """The picture of one image, and over it the map of every word. Raises RecordError as
        ``show``."""
        self.require_drawable()
        return shown.sheet(self, image)

    def ground(self, image: int) -> Image.Image:
        """What maps are drawn on: the picture, or gray of the finest grid. Raises SettingError."""
        return shown.ground(self, image)

    def require_drawable(self) -> None:
        if not self.drawable:
            raise RecordError(f"drawn: image->text of pictures, not of {self.direction} or videos")

    def __repr__(self) -> str:
        if self._recording is None:
            return "AttentionMaps(not complete before the record(...) block ends)"
        return shown.described(self)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows, or a viewer that takes no HTML."""
        return shown.png(self) if self._recording is not None and self.drawable else None

    def _repr_html_(self) -> str | None:
        """The picture, and below it what was recorded."""
        picture = self._repr_png_()
        return None if picture is None else shown.page(picture, repr(self))
