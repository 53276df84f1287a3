"""Where in a run of a pipeline an attention call happens."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.rows import put, require_same_shape, rows_at
from attncontrol.attention.source import Name, Part, Place, Source, SourcePass, kept_name
from attncontrol.errors import CouplingError
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Span
from attncontrol.prompts.words import Word

Purpose = Literal["own", "gradient", "weakened", "probe"]
"""Why the denoiser runs: the pipeline's own pass, that of ``steer``, that of ``perturb``, or one of
an analysis. Edits act in all but the last, recorders see the first alone."""


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
    counts the parts of the picture that are denoised one after another in the same step, ``stage``
    the evaluations within a step of solvers that take several (Heun, KDPM2): each has a timestep of
    its own, and is number ``evaluation`` of the ``evaluations`` of the run.
    ``encoding`` are the arguments with which the pipeline called its ``encode_prompt``, ``kept``
    what edits keep until the run ends. ``backward`` steps are those of a run from a picture to
    noise: each is the step of the run that goes the other way, whose last one comes first. Of
    denoisers that run ``in_turn`` each has some of the steps.
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
    stage: int = 0
    evaluation: int = 0
    evaluations: int = 1
    backward: bool = False
    in_turn: bool = False

    @property
    def is_last(self) -> bool:
        """Whether the run has no further evaluation."""
        return self.evaluation + 1 >= self.evaluations

    @property
    def done(self) -> int:
        """How many steps ran before it."""
        return self.total - 1 - self.index if self.backward else self.index

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
    but edits looks at them. ``before`` are the latents before a step, after it alone.
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

    def source_of(self, source: Source, image: int) -> int | None:
        """The image that another one takes attention from, which is itself if from none; None if
        it is of a kept pass. Raises CouplingError if there is none for it."""
        if isinstance(source, SourcePass):
            return None
        if isinstance(source, int):
            return source
        if image >= len(source):
            raise CouplingError(
                f"source has {len(source)} numbers, one for every image, but the pipeline makes "
                f"{len(self.text.prompts)}"
            )
        return source[image]

    def told(self, source: Source, image: int) -> tuple[Text, int]:
        """The text in which the prompt of the source of an image is, and its number there."""
        if isinstance(source, SourcePass):
            return source.text, source.of(image)
        number = self.source_of(source, image)
        assert number is not None  # of no kept pass
        return self.text, number

    def source(
        self,
        call: AttentionCall,
        image: Source = 0,
        part: Part = "all",
        names: Collection[Name] = ("query", "key", "value"),
        branches: Collection[str] | None = None,
    ) -> AttentionCall:
        """The call in which every row of ``branches`` (None: of all) has query, key and value, or
        those of ``names``, of the row of its source ``image`` in the same branch; without gradient,
        except that image's own rows.

        ``part="picture"`` leaves the positions of the text in joint attention as they are: there
        the source's text would come along with its picture. Raises CouplingError for what was not
        kept of a source.
        """
        picture = part == "picture" and call.site.kind == "joint"
        places, site = self.layout.image_slice if picture else slice(None), call.site.name
        taken = {}
        for name in names:
            own, kept = getattr(call, name), kept_name(name, part, call)
            theirs = self._of_source(image, kept, own[:, :, places], branches, site)
            taken[name] = put(own, theirs, places) if picture else theirs
        mask = call.mask
        if mask is not None and mask.ndim == 4 and part == "all" and "key" in names:
            rows = mask.expand(len(call.query), *mask.shape[1:])
            mask = self._of_source(image, "mask", rows, branches, site)
        return call.replace(mask=mask, **taken)

    def output_of(self, source: Source, module: str, output: Any) -> Any:
        """The output of a module that is that of the source in every row. Raises CouplingError."""
        leaves, tree = tree_flatten(output)
        theirs = [self._of_source(source, f"output {k}", leaf, None, module)
                  if isinstance(leaf, Tensor) else leaf
                  for k, leaf in enumerate(leaves)]  # fmt: skip
        return tree_unflatten(theirs, tree)

    def latents_of(self, source: Source, latents: Tensor) -> Tensor:
        """The latents [image ...] of the source of every image, of those after a step. Raises
        CouplingError."""
        return self._of_source(source, "latents", latents, None, "")

    def pictures_of(self, source: Source, pictures: Tensor) -> Tensor | None:
        """The decoded picture [image ...] of the source of every image; None of a kept source that
        was not decoded. Raises CouplingError."""
        if isinstance(source, SourcePass) and self.place("picture") not in source:
            return None
        return self._of_source(source, "picture", pictures, None, "")

    def before_of(self, source: Source) -> Tensor:
        """Those before the step. Raises CouplingError."""
        assert self.before is not None  # after a step
        before = replace(self, step=replace(self.step, index=self.step.index - 1))
        return before.latents_of(source, self.before)

    def place(self, name: str, branch: str = "cond", site: str = "") -> Place:
        """Where in the run something is."""
        return Place(name, self.step.index, self.step.view, branch, site, self.step.stage)

    def _of_source(
        self,
        source: Source,
        name: str,
        own: Tensor,
        branches: Collection[str] | None,
        site: str,
    ) -> Tensor:
        """``own`` [row ...] with the rows of the source in ``branches``."""
        if not isinstance(source, SourcePass):
            return rows_at(own, self._rows_of(source, branches))
        parts = []
        for branch in self.branches:
            rows = own[self.rows(branch)]
            if branches is None or branch in branches:
                theirs = source.take(self.place(name, branch, site))
                require_same_shape(theirs, rows, name, site)
                places = [source.of(image) for image in self.images]
                parts.append(
                    (theirs.expand_as(rows) if len(theirs) == 1 else theirs[places]).to(rows)
                )
            else:
                parts.append(rows)
        return torch.cat(parts)

    def _rows_of(self, source: Source, branches: Collection[str] | None) -> list[int]:
        """For every row that of its source in the same branch, its own in other branches. Raises
        CouplingError."""
        sources = [self.source_of(source, image) for image in self.images]
        if missing := {number for number in sources if number is not None} - set(self.images):
            raise CouplingError(
                f"the source is image {min(missing)}, but the pipeline makes images "
                f"{sorted(self.images)}; give it a prompt for every image, the source's too"
            )
        count, places = len(self.images), [self.images.index(number) for number in sources]
        return [
            k * count + (at if branches is None or branch in branches else own)
            for k, branch in enumerate(self.branches)
            for own, at in enumerate(places)
        ]
