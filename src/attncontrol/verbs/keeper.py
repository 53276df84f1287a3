"""What ``keep`` takes while the pipeline runs."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from attncontrol.attention.ahead import each_call, each_step, stands_for_all
from attncontrol.attention.between import text_mass
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Facts, Place, words_of
from attncontrol.errors import CouplingError, SizeError
from attncontrol.families.autoencoder import cell_frames, cell_side
from attncontrol.maps.kept import Steps
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session
from attncontrol.running.sources import facts_of
from attncontrol.verbs.plan import Plan


@dataclass(eq=False)
class Keeper:
    """``tensors`` are those kept so far, those of one step if they go to ``files``; ``step`` counts
    the steps that ended, of an inversion, ``backward``, from the last one. ``size`` is what the
    whole pass will hold, as far as it is known from the first step that runs; of denoisers that run
    in turn, what was kept so far."""

    run: Session
    plan: Plan
    device: str
    limit: float
    files: Steps | None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: Facts | None = None
    branches: set[str] = field(default_factory=set)
    step: int = 0
    size: int = 0
    backward: bool = False

    def before(self, call: DenoiserCall) -> None:
        """Every call of the denoiser: whether a step begins with it."""
        self.branches.update(call.branches)
        if self.facts is not None and (call.is_first or call.step.done < self.step):
            raise CouplingError(
                "one keep(...) block keeps one pipeline call; open a new block for the next call"
            )
        if self.facts is None:
            self.facts, self.backward = facts_of(self.run.contexts, call), call.step.backward
        while self.step < call.step.done:
            self._end_step()

    def listen(self, call: AttentionCall, now: Moment) -> Tensor:
        """One attention call of the pipeline's own pass."""
        if stands_for_all(now):
            self._estimate(call, now)
        for place in {place for _, place in self.plan.taken(call, now)}:
            self._put(place, _part(call, now, place))
        return call.run()

    def passed(self, name: str, _: Mapping[str, Any], output: Any, now: Moment) -> None:
        """The output of another module."""
        if now.purpose != "own":
            return
        acting = [self.plan.changes(name, then.progress) for then in each_call(now)]
        for k, leaf in enumerate(tree_leaves(output)):
            if not isinstance(leaf, Tensor):
                continue
            if stands_for_all(now):
                self._grow(sum(acting) * leaf.nbytes)
            if self.plan.changes(name, now.progress):
                for branch in now.branches:
                    self._put(now.place(f"output {k}", branch, name), leaf[now.rows(branch)])

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:
        """The latents after a step."""
        if now.step.done == 0:
            steps = sum(bool(self.plan.blending(then.progress)) for then in each_step(now))
            self._grow((steps + bool(steps)) * latents.nbytes)
            if any(self.plan.shows_source(then.progress) for then in each_step(now)):
                self._grow(_bytes_of_pictures(self.run.pipe, latents))
        blends = any(self.plan.blending(then.progress) for then in each_step(now))
        if blends and now.step.index == 0 and now.before is not None:
            self._put(now.place("latents")._replace(step=-1), now.before)
        if self.plan.blending(now.progress):
            self._put(now.place("latents"), latents)
        return latents

    def decoded(self, pictures: Tensor, now: Moment) -> Tensor:
        """The pictures, for edits that blend to the end."""
        if self.plan.shows_source(now.progress):
            self._put(now.place("picture"), pictures)
        return pictures

    def finish(self) -> Facts:
        """What run it was. Raises CouplingError for one that did not end, or gave nothing."""
        facts = self.facts
        assert facts is not None  # the denoiser ran
        if self.step != facts.steps - 1:
            raise CouplingError(
                f"the pipeline was stopped after {self.step + 1} of {facts.steps} steps, so the "
                "source is not whole: keep it again"
            )
        if not self.size:
            raise CouplingError(f"nothing was kept: {self.plan} take nothing in any step")
        facts = replace(facts, branches=tuple(sorted(self.branches)))
        if self.files is not None:
            self._end_step()
            self.files.finish(facts)
        return facts

    def _end_step(self) -> None:
        if self.files is not None:
            assert self.facts is not None  # the denoiser ran
            of = self.facts.steps - 1 - self.step if self.backward else self.step
            self.files.write(self.tensors, of)
            self.tensors = {}
        self.step += 1

    def _put(self, place: Place, tensor: Tensor) -> None:
        with torch.inference_mode(False):  # gradients flow beside it later
            self.tensors[str(place)] = tensor.detach().to(self.device, copy=True).contiguous()

    def _estimate(self, call: AttentionCall, now: Moment) -> None:
        """What all steps will keep of this call."""
        steps: Counter[tuple[str, str]] = Counter()
        for then in each_call(now):
            steps.update({(place.name, place.branch) for _, place in self.plan.taken(call, then)})
        for (name, branch), count in steps.items():
            place = now.place(name, branch, call.site.name)
            self._grow(count * (_bytes_of_maps(call, now) if name == "maps"
                                else _part(call, now, place).nbytes))  # fmt: skip

    def _grow(self, size: int) -> None:
        """Raises SizeError."""
        self.size += size
        if self.size > self.limit:
            raise SizeError(
                f"this source would hold more than {self.size / 2**30:.1f} GiB, "
                f"limit={self.limit / 2**30:.1f} GiB; keep fewer sites or steps (where=..., "
                "steps=..., smaller shares in the edit), or raise limit=..."
            )


def _part(call: AttentionCall, now: Moment, place: Place) -> Tensor:
    """What is kept of a call [image ...] in one branch."""
    rows, own = now.rows(place.branch), call.rows(now.rows(place.branch))
    if place.name == "maps":
        images = range(len(now.images))
        groups = [[(position,) for position in words_of(now.text, image)] for image in images]
        return text_mass(own, now.layout.rows(rows), groups).mean(1)
    if place.name == "mask":
        assert call.mask is not None  # it has a name
        return call.mask.expand(len(call.query), *call.mask.shape[1:])[rows]
    name, *with_text = place.name.split(" with text")
    tensor: Tensor = getattr(own, name)
    if call.site.kind == "joint" and not with_text:
        return tensor[:, :, now.layout.rows(rows).image_slice]
    return tensor


def _bytes_of_pictures(pipe: Any, latents: Tensor) -> int:
    """As the autoencoder gives them, of latents in a grid or as cells; none of pipelines whose
    pictures are not seen."""
    if getattr(pipe, "vae", None) is None:
        return 0
    config = pipe.vae.config  # autoencoders of videos name their channels otherwise
    places = latents.numel() // (config.get("latent_channels") or config["z_dim"])
    pixels = places * cell_side(pipe) ** 2 * cell_frames(pipe)
    return int(pixels * 3 * latents.element_size())


def _bytes_of_maps(call: AttentionCall, now: Moment) -> int:
    words = max(len(words_of(now.text, image)) for image in range(len(now.images)))
    wide = max(call.query.element_size(), 4)
    return len(now.images) * math.prod(now.layout.grid) * words * wide
