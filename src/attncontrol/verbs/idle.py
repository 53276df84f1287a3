"""Edits of which nothing came, and why."""

import warnings
from collections.abc import Container
from dataclasses import dataclass, field

from attncontrol.attention.call import Layout
from attncontrol.attention.edit import Edit
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import SourcePass
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session
from attncontrol.running.wiring import Sites
from attncontrol.verbs.plan import Plan

_NO_STEP = "no step of the run lies where it acts; those of n steps lie at 0, 1 / (n - 1) ... 1"
_NO_DENOISER = "the denoiser that it has layers of runs in none of the steps where it acts"
_NO_OTHER = "its source is the only image; give a prompt for every image, the source's too"


@dataclass(eq=False)
class Watch:
    """The shares of the run at which the denoiser was called, with the sites of the one that ran,
    and the images of these calls."""

    plan: Plan
    run: Session
    progress: dict[float, Sites] = field(default_factory=dict)
    images: set[int] = field(default_factory=set)
    branches: set[str] = field(default_factory=set)

    def begin(self, call: DenoiserCall) -> None:
        """Before a pass. Raises WordError for words that no prompt has, before the first one."""
        if call.is_first:
            run = call.branches, call.images, call.text
            self.plan.require_words(Moment(call.step, Layout(()), "own", *run))
        self.progress[call.step.progress] = self.run.running
        self.images.update(call.images)
        self.branches.update(call.branches)

    def warn(self) -> None:
        """One warning for every edit that had nothing to do, not for one that never has, and for
        every kept source of a run with guidance where this one had none."""
        steps = "" if self.plan.steps == (0.0, 1.0) else f" with steps={self.plan.steps}"
        for one in self.plan.placed:
            if why := self._why_idle(one.edit, one.heads):
                warnings.warn(f"{one.edit} changed nothing{steps}: {why}", stacklevel=6)
        for source in self.plan.kept if self.branches else ():
            if gone := sorted(set(source.facts.branches) - self.branches):
                warnings.warn(
                    f"the source was kept with guidance, this run has none: its {gone[0]!r} branch "
                    "was not used; run both with or both without",
                    stacklevel=6,
                )

    def _why_idle(self, edit: Edit, places: Container[str]) -> str | None:
        start, end = self.plan.steps
        acting = [share for share in self.progress if start <= share <= end and edit.acts(share)]
        if self.progress and not acting:
            return _NO_STEP if any(edit.acts(percent / 100) for percent in range(101)) else None
        ran = {name for share in acting for name in self.progress[share]}
        if places and acting and not any(name in places for name in ran):
            return _NO_DENOISER
        of = edit.source
        if of is None or isinstance(of, SourcePass) or not self.images:
            return None
        alone = all(image == (of if isinstance(of, int) else of[image]) for image in self.images)
        return _NO_OTHER if alone else None
