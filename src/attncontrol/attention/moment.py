"""Where in a run of a pipeline an attention call happens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.errors import CouplingError
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Span
from attncontrol.prompts.words import Word

Purpose = Literal["own", "gradient", "weakened", "probe"]
"""Why the denoiser runs: the pipeline's own pass, that of ``steer``, that of ``perturb``, or one of
an analysis. Edits act in all but the last, recorders see the first alone."""
Part = Literal["picture", "all"]
Source = int | Sequence[int]
"""The image that others take attention from, or for every image of the batch that of its source."""


def steps_in(share: float, total: int) -> int:
    """How many whole steps a share of a run of ``total`` has: 29 in 0.58 of 50, 10 in 1/3 of 30,
    whatever the rounding of binary numbers."""
    return int(share * total + 1e-9)


@dataclass(frozen=True, eq=False)
class Step:
    """One denoising step: its number ``index`` of ``total``, the ``timestep`` that the denoiser is
    given, and c in x = c z, ``scale``.

    ``noise`` is how far that is from the picture by the scheduler's own count, 1 at the beginning
    of a whole run, ``noise_after`` how far the latents are after the step, 0 at the end. ``view``
    counts the parts of the picture that are denoised one after another in the same step.
    ``encoding`` are the arguments with which the pipeline called its ``encode_prompt``, ``kept``
    what edits keep until the run ends.
    """

    index: int
    total: int
    timestep: float
    scale: float
    encoding: Mapping[str, Any]
    view: int = 0
    kept: dict[int, dict[Any, Any]] = field(default_factory=dict, repr=False)
    noise: float = 1.0
    noise_after: float = 0.0

    @property
    def progress(self) -> float:
        """The share of the run that is done, 0 in the first step and 1 in the last."""
        return self.index / max(self.total - 1, 1)


@dataclass(frozen=True, eq=False)
class Moment:
    """Where in the run an attention call happens, and whose rows it has: branch by branch, and in
    each branch those of ``images``, the numbers of pictures in the pipeline's batch.

    ``layout`` says where picture and text lie in the sequences of the site, ``text`` what the
    words of every image are. The last ``riders`` images of a branch are sources alone: nothing
    but edits looks at them. ``before`` are the latents before a step, for ``Edit.stepped`` alone.
    """

    step: Step
    layout: Layout
    purpose: Purpose
    branches: tuple[str, ...]
    images: tuple[int, ...]
    text: Text
    riders: int = 0
    before: Tensor | None = None

    @property
    def progress(self) -> float:
        """The share of the run that is done, 0 in the first step and 1 in the last."""
        return self.step.progress

    def rows(self, branch: str) -> slice:
        """The rows of a branch, none if the call has no such branch."""
        if branch not in self.branches:
            return slice(0, 0)
        start = self.branches.index(branch) * len(self.images)
        return slice(start, start + len(self.images))

    def image_of_row(self, row: int) -> int:
        """The number of the picture that a row of the batch belongs to."""
        return self.images[row % len(self.images)]

    def span(self, word: Word, image: int) -> Span:
        """The text positions of a word of the prompt of an image; see ``locate``. Raises
        WordError."""
        return self.text.span(word, image)

    def notes(self, edit: object) -> dict[Any, Any]:
        """What an edit keeps while the pipeline runs: sums, masks. Empty when a run begins."""
        return self.step.kept.setdefault(id(edit), {})

    def source_of(self, source: Source, image: int) -> int:
        """The image that another one takes attention from, which is itself if from none. Raises
        CouplingError if there is none for it."""
        if isinstance(source, int):
            return source
        if image >= len(source):
            raise CouplingError(
                f"source has {len(source)} numbers, one for every image, but the pipeline makes "
                f"{len(self.text.prompts)}"
            )
        return source[image]

    def source(self, call: AttentionCall, image: Source = 0, part: Part = "all") -> AttentionCall:
        """The call in which every row has the query, key and value of the row of its source
        ``image`` in the same branch; without gradient, except that image's own rows.

        ``part="picture"`` leaves the positions of the text in joint attention as they are: there
        the source's text would come along with its picture.
        """
        at = self.rows_of(image)
        taken = {name: self.taken(getattr(call, name), image) for name in ("query", "key", "value")}
        if part == "picture" and call.site.kind == "joint":
            places = self.layout.image_slice
            own = {name: getattr(call, name) for name in taken}
            taken = {name: _put(own[name], tensor, places) for name, tensor in taken.items()}
        mask = call.mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1 and part == "all":
            mask = mask[at]
        return call.replace(mask=mask, **taken)

    def rows_of(self, source: Source) -> list[int]:
        """For every row that of its source in the same branch. Raises CouplingError."""
        sources = [self.source_of(source, image) for image in self.images]
        if missing := set(sources) - set(self.images):
            raise CouplingError(
                f"the source is image {min(missing)}, but the pipeline makes images "
                f"{sorted(self.images)}; give it a prompt for every image, the source's too"
            )
        count, places = len(self.images), [self.images.index(image) for image in sources]
        return [branch * count + at for branch in range(len(self.branches)) for at in places]

    def taken(self, tensor: Tensor, source: Source) -> Tensor:
        """[row a b c] with the row of its source in every row; without gradient, except those that
        are their own. Raises CouplingError."""
        at = self.rows_of(source)
        if not tensor.requires_grad:
            return tensor[at]
        stays = torch.tensor([row == of for row, of in enumerate(at)], device=tensor.device)
        return torch.where(stays[:, None, None, None], tensor, tensor.detach()[at])


def _put(own: Tensor, other: Tensor, places: slice) -> Tensor:
    """``own`` with the positions ``places`` of ``other``."""
    result = own.clone()
    result[:, :, places] = other[:, :, places]
    return result
