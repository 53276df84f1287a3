"""``record``: keep the attention of a pipeline call, reduced while it runs."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from attncontrol.attention.between import Direction, related, sites_with
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import TEXT, Where
from attncontrol.errors import CouplingError, RecordError, SettingError, SizeError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.recording import Recording
from attncontrol.maps.store import Encoding, load, save, save_pictures
from attncontrol.prompts.words import Words
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Hooks, Session, attach
from attncontrol.verbs.about import about, reductions, sigma

Axis = Literal["step", "head"]


@contextmanager
def record(
    pipe: Any,
    words: Words | None = None,
    *,
    where: Where | None = None,
    direction: Direction = "image->text",
    keep: Collection[Axis] = (),
    branches: Sequence[str] = ("cond",),
    steps: Collection[int] | None = None,
    to: Path | str | None = None,
    encoding: Encoding = "float32",
    limit: float = 4.0 * 2**30,
) -> Iterator[AttentionMaps]:
    """Records the attention of one pipeline call; the pictures are bit-identical to those made
    without.

        with record(pipe, ["cat", "frog"]) as maps:
            maps.pictures = pipe("a cat and a frog").images

    ``words`` are words or phrases of the prompt ("cat", "red car", "cat#2"), or a mapping from
    prompt to words; None records every text position. Means over heads and steps are formed while
    the pipeline runs; ``keep`` keeps these axes. ``branches`` are "cond" and, under classifier-free
    guidance, "uncond". ``steps`` are the indices of the steps to record, None for all.
    ``direction`` other than "image->text" needs joint attention or, for "image->image",
    self-attention (see ``related``); ``where`` is every site that has it unless given. ``to`` is a
    folder that gets every step as soon as it is complete, in an ``encoding`` of ``save``, so that
    the memory of one step is held; the steps are kept. ``pictures`` set inside the block are put
    there too.

    Means count the steps in which a site and a branch ran; kept steps in which they did not are
    NaN. Parts of a picture that are denoised one after another in a step count as one mean. Inside
    ``edit`` the attention is the edited one.

    Yields AttentionMaps, complete when the block ends. Raises WordError and SiteError; SizeError if
    the recording would hold more than ``limit`` bytes (float32), before the first step;
    CouplingError if nothing was recorded, or if the pipeline is called twice; RecordError if the
    folder holds a record.
    """
    run = attach(pipe)
    if unknown := set(keep) - {"step", "head"}:
        raise SettingError(f"keep={sorted(unknown)}: the axes to keep are 'step' and 'head'")
    sites = sites_with(tuple(run.sites.values()), direction, where)
    kept = frozenset(keep) if to is None else frozenset(keep) | {"step"}
    draft = SimpleNamespace(
        sites=sites, branches=tuple(branches), direction=direction, about={},
        reductions=reductions(kept, direction), steps=(), timesteps=(), sigmas=(),
    )  # fmt: skip
    folder = None if to is None else Path(to)
    if folder is not None and any(folder.glob("step-*.safetensors")):
        raise RecordError(f"{to} holds a record already; delete it or choose another folder")
    maps = AttentionMaps()
    recorder = _Recorder(run, draft, words, kept, steps, folder, encoding, limit)
    with run.hooked(Hooks(sites=sites, listen=recorder.listen, before=recorder.before)):
        yield maps
    maps._complete(recorder.finish(maps.pictures))


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


@dataclass(eq=False)
class _Recorder:
    """``sums`` holds, by site and branch, one sum per kept step, or one for all under None."""

    run: Session
    maps: SimpleNamespace
    words: Words | None
    kept: frozenset[str]
    steps: Collection[int] | None
    folder: Path | None
    encoding: Encoding
    limit: float
    sums: dict[tuple[str, str], dict[int | None, _Sum]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    met: set[str] = field(default_factory=set)

    def before(self, call: DenoiserCall) -> None:
        self.met.update(call.branches)
        index = call.step.index
        if self.seen and index == self.seen[-1] and not call.is_first:
            return
        if self.seen and index <= self.seen[-1] and not (call.nth or call.step.view):
            raise CouplingError(
                "one record(...) block records one pipeline call; open a new block for the next "
                "call"
            )
        if not self.seen:
            self.begin(call)
        self.write_step()
        self.seen.append(index)
        if self.wanted(index):
            self.maps.steps += (index,)
            self.maps.timesteps += (call.step.timestep,)
            self.maps.sigmas += (sigma(self.run.pipe.scheduler, call.step),)

    def wanted(self, index: int) -> bool:
        return self.steps is None or index in self.steps

    def begin(self, call: DenoiserCall) -> None:
        """What the prompts say, and whether there is room."""
        maps, text = self.maps, call.text
        if maps.direction == "image->image":
            maps.spans = ((),) * len(text.prompts)
            if self.words is not None:
                text.spans(self.words)  # raises where a word is wrong
        else:
            maps.spans = text.spans(self.words)
        maps.prompts = tuple(str(prompt) for prompt in text.prompts)
        known = None not in text.prompts
        maps.tokens = tuple(text.tokens(b) if known else () for b in range(len(text.prompts)))
        maps.about |= about(self.run.pipe, call.step) | {"seeds": list(self.run.seeds)}
        if (size := self.size(call)) > self.limit:
            raise SizeError(
                f"this recording would hold {size / 2**30:.1f} GiB, more than "
                f"limit={self.limit / 2**30:.1f} GiB; name words, record fewer layers or steps, "
                "drop keep=..., or raise limit=..."
            )

    def size(self, call: DenoiserCall) -> int:
        """Bytes of the whole recording in float32."""
        layout, numbers = self.run.family.layout, 0
        tokens = max(map(len, self.maps.spans))
        for site in self.maps.sites.values():
            cells = math.prod(layout(self.run.denoiser, call.arguments, site).grid)
            of_grid = {"image->image": cells * cells, "text->text": tokens * tokens}
            maps = of_grid.get(self.maps.direction, cells * tokens)
            numbers += maps * (site.heads if "head" in self.kept else 1)
        steps = 1
        if "step" in self.kept:
            steps = sum(self.wanted(index) for index in range(call.step.total))
        return 4 * numbers * len(call.images) * len(self.maps.branches) * steps

    def listen(self, call: AttentionCall, now: Moment) -> Tensor:
        if not self.wanted(now.step.index):
            return call.run()
        output, call = call.run_with_normaliser()
        groups = [[span.positions for span in of_image] for of_image in self.maps.spans]
        key = now.step.index if "step" in self.kept else None
        for branch in set(self.maps.branches) & set(now.branches):
            rows = now.rows(branch)
            maps = related(call.rows(rows), now.layout.rows(rows), groups, self.maps.direction)
            maps = maps if "head" in self.kept else maps.mean(1, keepdim=True)
            maps = maps.float()[:, None, None]
            sums = self.sums.setdefault((call.site.name, branch), {})
            if key in sums:
                sums[key].add(maps)
            else:
                sums[key] = _Sum(maps)
        return output

    def collected(self, steps: Sequence[int]) -> dict[str, Tensor]:
        """[image branch step head *grid token] of every site that ran, of kept or of all steps."""
        branches = [branch for branch in self.maps.branches if branch in self.met]
        ran = [n for n in self.maps.sites if any((n, branch) in self.sums for branch in branches)]
        self.maps.about["not_run"] = [name for name in self.maps.sites if name not in ran]
        keys: Sequence[int | None] = steps if "step" in self.kept else [None]
        layers = {}
        for name in ran:
            sums = [self.sums.get((name, branch), {}) for branch in branches]
            like = next(iter(next(filter(None, sums)).values())).total
            nothing = torch.full_like(like, torch.nan)
            means = [[of[k].mean if k in of else nothing for k in keys] for of in sums]
            layers[name] = torch.cat([torch.cat(of_branch, 2) for of_branch in means], 1).cpu()
        return layers

    def write_step(self) -> None:
        """The step whose calls are complete goes to the folder."""
        if self.folder is not None and self.sums:
            last = {
                name: getattr(self.maps, name)[-1:] for name in ("steps", "timesteps", "sigmas")
            }
            layers = self.collected(last["steps"])
            step = AttentionMaps(**{**vars(self.maps), **last, "layers": layers})
            file = self.folder / f"step-{self.maps.steps[-1]:04}.safetensors"
            save(step, file, encoding=self.encoding)
            self.sums.clear()

    def finish(self, pictures: Sequence[Any]) -> Recording:
        maps = self.maps
        if unknown := set(maps.branches) - self.met:
            raise CouplingError(
                f"branch {sorted(unknown)} does not exist in this call; its branches are "
                f"{tuple(sorted(self.met))}"
            )
        if not maps.steps:
            raise CouplingError(
                f"nothing was recorded: none of the steps {self.steps} among the {len(self.seen)} "
                "steps of this run"
            )
        if self.folder is None:
            return Recording(layers=self.collected(maps.steps), **vars(maps))
        self.write_step()
        if len(pictures):
            save_pictures(pictures, self.folder)
        return Recording(layers=load(self.folder).layers, **vars(maps))


def estimate_bytes(
    pipe: Any,
    *,
    words: int,
    height: int,
    width: int,
    steps: int,
    batch: int = 1,
    branches: int = 1,
    where: Where = TEXT,
    keep: Collection[Axis] = (),
) -> int:
    """Bytes that a recording of ``words`` words will hold for pictures of height x width pixels
    (float32)."""
    sizes = {"words": words, "height": height, "width": width, "steps": steps, "batch": batch}
    if wrong := {name: size for name, size in sizes.items() if not size >= 1}:
        raise SettingError(f"sizes are numbers of at least 1, not {wrong}")
    latent = height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    cells = 0
    for site in where.select(attach(pipe).sites.values()):
        h, w = site.grid(*latent)
        cells += h * w * (site.heads if "head" in keep else 1)
    return 4 * cells * words * batch * branches * (steps if "step" in keep else 1)
