"""What ``record`` keeps while the pipeline runs, and how it becomes a recording."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.between import related
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.errors import CouplingError, NonFiniteError
from attncontrol.maps.recording import BranchText, Recording
from attncontrol.maps.store import pixels
from attncontrol.running.cache import tell_skipped
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session
from attncontrol.verbs.about import about, reductions, sigma
from attncontrol.verbs.branches import filled, without_absent
from attncontrol.verbs.room import bytes_of, require_room
from attncontrol.verbs.taking import Taking
from attncontrol.verbs.wish import Wish


@dataclass(eq=False)
class _Sum:
    """``total`` [image 1 1 head *grid token] of ``count`` attention calls."""

    total: Tensor
    count: int = 1

    def add(self, maps: Tensor) -> None:
        self.total, self.count = self.total + maps, self.count + 1

    @property
    def mean(self) -> Tensor:
        return self.total / self.count


def _require_same_frames(known: Iterable[_Sum], maps: Tensor, name: str) -> None:
    """Raises CouplingError where a pipeline goes on with a part of its frames (ChronoEdit)."""
    grids = [tuple(one.shape[4:-1]) for one in (*(of.total for of in known), maps)]
    if grids[0] != grids[-1]:
        raise CouplingError(
            f"the maps of {name} had the grid {grids[0]} in the steps before, and have "
            f"{grids[-1]} now: record one part of the run, by steps=..., and the other in another "
            "run"
        )


@dataclass(frozen=True, eq=False)
class _Step:
    """One recorded evaluation, of step number ``step``."""

    index: int
    step: int
    timestep: float
    sigma: float | None


@dataclass(eq=False)
class Recorder:
    """``sums`` holds, by site and branch, one sum per kept step, or one for all under None.

    ``texts`` of the branches and ``known`` (what ran) are there from the first step on. ``met``
    are the branches that ran, ``seen`` the steps, ``ran`` the sites by step, of those of the
    denoiser that was ``running``, ``taking`` knows sources.
    """

    run: Session
    wish: Wish
    taking: Taking
    sums: dict[tuple[str, str], dict[int | None, _Sum]] = field(default_factory=dict)
    texts: dict[str, BranchText] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    steps: list[_Step] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    met: set[str] = field(default_factory=set)
    ran: dict[int, set[str]] = field(default_factory=dict)
    running: dict[int, Collection[str]] = field(default_factory=dict)

    def before(self, call: DenoiserCall) -> None:
        """Every call of the denoiser: whether a step begins with it."""
        self.met.update(call.branches)
        index, last = call.step.evaluation, self.seen[-1] if self.seen else -1
        if self.seen and (call.is_first or index < last):
            raise CouplingError(
                "one record(...) block records one pipeline call; open a new block for the next "
                "call"
            )
        if index == last:
            return
        if not self.seen:
            self._begin(call)
        alone = getattr(self.run.pipe, "do_classifier_free_guidance", None) is False
        if alone or (self.seen and not call.text.of("uncond").known(0)):
            self._require_met({"uncond", "reference"}.intersection(self.wish.branches))
        self.seen.append(index)
        if self.wish.has_step(index):
            self._write_step()
            self.running[index] = self.run.running.keys()
            noise = sigma(self.run.pipe.scheduler, call.step)
            self.steps.append(_Step(index, call.step.index, call.step.timestep, noise))

    def listen(self, call: AttentionCall, now: Moment) -> Tensor:
        """One attention call of the pipeline's own pass."""
        wish, index = self.wish, now.step.evaluation
        if not wish.has_step(index):
            return call.run()
        output, call = call.run_with_normaliser()
        self.ran.setdefault(index, set()).add(call.site.name)
        self.taking.listen(call, now, self.texts.get("cond"))
        key = index if "step" in wish.kept else None
        for branch in set(wish.branches) & set(now.branches):
            if branch not in self.texts:
                self.texts = wish.texts(now.text, wish.branches)
            rows = now.rows(branch)
            groups = [[s.positions for s in of_image] for of_image in self.texts[branch].spans]
            maps = related(call.rows(rows), now.layout.rows(rows), groups, wish.direction)
            maps = filled(maps, self._names, wish.direction)
            maps = maps if "head" in wish.kept else maps.mean(1, keepdim=True)
            maps = maps.float()[:, None, None]
            sums = self.sums.setdefault((call.site.name, branch), {})
            _require_same_frames(sums.values(), maps, call.site.name)
            if key in sums:
                sums[key].add(maps)
            else:
                sums[key] = _Sum(maps)
        return output

    def finish(self, pictures: Sequence[Any]) -> Recording:
        """Its layers are in the folder if there is one. Raises CouplingError if there is nothing,
        or not what was asked for."""
        wish = self.wish
        self._require_met(wish.branches)
        if not self.steps:
            raise CouplingError(
                f"nothing was recorded: the run ended after {len(self.seen)} steps, before "
                f"steps={wish.steps}"
            )
        if wish.stream is not None:
            shown = None
            try:
                shown = pixels(pictures, self._images) if len(pictures) else None
            finally:  # what was recorded is there whatever the pictures are
                self._write_step(shown, last=True)
        recording = self._recording(self.steps)
        tell_skipped(self.run.denoiser, self.ran, self.running, len(self.seen))
        return recording

    def _require_met(self, branches: Collection[str]) -> None:
        """Raises CouplingError for a branch that did not run."""
        if never := sorted(set(branches) - self.met):
            raise CouplingError(
                f"branch {never} does not exist in this call; its branches are "
                f"{tuple(sorted(self.met))}"
            )

    def _begin(self, call: DenoiserCall) -> None:
        """What the prompts say, and whether there are such steps and room. Raises CouplingError;
        SizeError."""
        wish, text, total = self.wish, call.text, call.step.evaluations
        if late := sorted(index for index in wish.steps or () if index >= total):
            raise CouplingError(
                f"steps {late} do not exist in this run of {total}, numbered from 0: choose others"
            )
        sure = [b for b in wish.branches if b in call.branches or text.of(b).known(0)]
        self.texts = wish.texts(text, sure)  # others may never run
        self.known = {"about": about(self.run.pipe, call.step) | {"seeds": [*self.run.seeds]}}
        require_room(self._size(call), wish.limit)

    @property
    def _names(self) -> int:
        """The length of the token axis, but of attention among cells."""
        return max((len(each) for of in self.texts.values() for each in of.spans), default=0)

    def _size(self, call: DenoiserCall) -> int:
        """Bytes of the whole recording in float32."""
        wish = self.wish
        size = bytes_of(
            self.run, call, wish.sites, wish.direction, self._names, "head" in wish.kept
        )
        kept = sum(wish.has_step(index) for index in range(call.step.evaluations))
        steps = kept if "step" in wish.kept else 1
        return size * len(call.images) * len(wish.branches) * steps

    @property
    def _images(self) -> int:
        return max(len(text.prompts) for text in self.texts.values())

    def _write_step(self, pictures: Tensor | None = None, *, last: bool = False) -> None:
        """The step whose calls are complete goes to the folder."""
        if self.wish.stream is not None and self.steps:
            self.wish.stream.write(self._recording(self.steps[-1:]), pictures, last=last)
            self.sums.clear()

    def _recording(self, steps: Sequence[_Step]) -> Recording:
        wish = self.wish
        layers = self._layers(steps)
        self.known["about"]["not_run"] = [name for name in wish.sites if name not in layers]
        return Recording(
            layers=layers,
            sites=wish.sites,
            **vars(self.texts.get(wish.branches[0], BranchText())),
            others={branch: self.texts.get(branch, BranchText()) for branch in wish.branches[1:]},
            branches=wish.branches,
            steps=tuple(step.index for step in steps),
            timesteps=tuple(step.timestep for step in steps),
            sigmas=tuple(step.sigma for step in steps),
            direction=wish.direction,
            reductions=reductions(wish.kept, wish.direction),
            taken=self.taking.of([step.step for step in steps]),
            **self.known,
        )

    def _require_finite(self) -> None:
        for (name, branch), sums in self.sums.items():
            for step, one in sums.items():
                if not one.total.isfinite().all():
                    at = "" if step is None else f" at step {step}"
                    raise NonFiniteError(
                        f"the attention at {name} is NaN or infinite in the branch {branch!r}{at}; "
                        "run the model in float32"
                    )

    def _layers(self, steps: Sequence[_Step]) -> dict[str, Tensor]:
        """[image branch step head *grid token] of every site that ran; NaN where a site or a branch
        did not run in a kept step."""
        keys = [step.index for step in steps] if "step" in self.wish.kept else [None]
        layers: dict[str, Tensor] = {}
        self._require_finite()
        texts = [self.texts.get(branch, BranchText()) for branch in self.wish.branches]
        for name in self.wish.sites:
            sums = [self.sums.get((name, branch), {}) for branch in self.wish.branches]
            if not any(sums):
                continue
            like = next(iter(next(filter(None, sums)).values())).total
            nothing = torch.full_like(like, torch.nan)
            means = [[of_branch[key].mean if key in of_branch else nothing for key in keys]
                     for of_branch in sums]  # fmt: skip
            whole = torch.cat([torch.cat(of_branch, 2) for of_branch in means], 1).cpu()
            layers[name] = without_absent(whole, texts, self.wish.direction)
        return layers
