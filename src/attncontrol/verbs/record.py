"""``record``: keep the attention of a pipeline call, reduced while it runs."""

import functools
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from attncontrol.attention.between import Direction, related, sites_with
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.intercept import tap
from attncontrol.attention.sites import TEXT, Where
from attncontrol.errors import CouplingError, UnsupportedError, WordError
from attncontrol.families.family import Family
from attncontrol.families.known import family_of
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.store import Encoding, load, save, save_pictures
from attncontrol.prompts.words import Words, each, resolve
from attncontrol.running.calls import DenoiserCall, probing
from attncontrol.running.follow import follow, observed
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

    ``words`` are words or phrases of the prompt ("cat", "red car", "cat#2"), or a mapping from
    prompt to words; None records every text position. Means over heads and steps are formed while
    the pipeline runs; ``keep`` keeps these axes. ``branches`` are "cond" and, under classifier-free
    guidance, "uncond". ``steps`` are the indices of the steps to record, None for all.
    ``direction`` other than "image->text" needs joint attention or, for "image->image",
    self-attention (see ``related``); ``where`` is every site that has it unless given. ``to`` is a
    folder that gets every step as soon as it is complete, in an ``encoding`` of ``save``, so that
    the memory of one step is held; the steps are kept. ``pictures`` set inside the block are put
    there too.

    Yields AttentionMaps, complete when the block ends. Raises WordError and SiteError;
    UnsupportedError if the recording would hold more than ``limit`` bytes (float32), before the
    first step; CouplingError if nothing was recorded, if the pipeline is called twice or if the
    folder holds a record.
    """
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    sites = sites_with(family.sites(denoiser), direction, where)
    kept = frozenset(keep) if to is None else frozenset(keep) | {"step"}
    maps = AttentionMaps(
        sites=sites,
        branches=tuple(branches),
        direction=direction,
        reductions=reductions(kept, direction),
    )
    recorder = _Recorder(
        pipe, family, maps, words, kept, steps, None if to is None else Path(to), encoding, limit
    )
    if to is not None and any(Path(to).glob("step-*.safetensors")):
        raise CouplingError(f"{to} holds a record already; delete it or choose another folder")
    with ExitStack() as stack:
        stack.enter_context(follow(pipe, family, recorder.on_call, recorder.on_done))
        if hasattr(pipe, "prepare_latents"):
            stack.enter_context(observed(pipe, "prepare_latents", recorder.on_latents))
        stack.enter_context(tap(denoiser, sites, recorder.handle))
        yield maps
    recorder.finish()


@dataclass
class _Recorder:
    """``sums`` holds, by site and branch, one tensor [image 1 1 head *grid token] per kept step, or
    their sum."""

    pipe: Any
    family: Family
    maps: AttentionMaps
    words: Words | None
    kept: frozenset[str]
    steps: Collection[int] | None
    folder: Path | None
    encoding: Encoding
    limit: float
    sums: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    current: DenoiserCall | None = None
    seen: list[int] = field(default_factory=list)
    met: set[str] = field(default_factory=set)

    def on_call(self, call: DenoiserCall) -> None:
        self.met.update(call.branches)
        wanted = self.steps is None or call.step.index in self.steps
        self.current = call if wanted else None
        if call.nth:
            return
        if self.seen and call.step.index <= self.seen[-1]:
            raise CouplingError(
                "one record(...) block records one pipeline call; open a new block for the next call"
            )
        if not self.seen:
            self.begin(call)
        self.write_step()
        self.seen.append(call.step.index)
        if wanted:
            self.maps.steps += (call.step.index,)
            self.maps.timesteps += (call.step.timestep,)
            self.maps.sigmas += (sigma(self.pipe.scheduler, call),)

    def on_done(self) -> None:
        self.current = None

    def on_latents(self, bound: dict[str, Any]) -> None:
        given = bound.get("generator")
        generators = given if isinstance(given, list) else [] if given is None else [given]
        self.maps.about["seeds"] = [generator.initial_seed() for generator in generators]

    def begin(self, call: DenoiserCall) -> None:
        """What the prompts say, and whether there is room."""
        maps, prompts = self.maps, call.step.prompts
        read = functools.cache(
            lambda prompt: self.family.tokens(self.pipe, prompt, call.step.encoding)
        )
        if self.words is None and None in prompts:
            raise WordError(
                "text positions have no names without the prompt; call the pipeline with it, not with prompt_embeds"
            )
        maps.prompts = tuple(str(prompt) for prompt in prompts)
        if self.words is not None:
            maps.spans = resolve(read, prompts, self.words)
        maps.tokens = tuple(read(prompt) for prompt in maps.prompts)
        if maps.direction == "image->image":
            maps.spans = ((),) * len(prompts)
        elif self.words is None:
            maps.spans = each(maps.tokens)
        maps.about |= about(self.pipe, call)
        if (size := self.size(call)) > self.limit:
            raise UnsupportedError(
                f"this recording would hold {size / 2**30:.1f} GiB, more than limit={self.limit / 2**30:.1f} GiB; name words, "
                "record fewer layers or steps, drop keep=..., or raise limit=..."
            )

    def size(self, call: DenoiserCall) -> int:
        """Bytes of the whole recording in float32."""
        denoiser = self.family.denoiser(self.pipe)
        numbers = 0
        for site in self.maps.sites.values():
            cells = math.prod(self.family.layout(denoiser, call.arguments, site).grid)
            tokens = max(map(len, self.maps.spans))
            of_grid = {"image->image": cells * cells, "text->text": tokens * tokens}.get(
                self.maps.direction, cells * tokens
            )
            numbers += of_grid * (site.heads if "head" in self.kept else 1)
        steps = (
            sum(self.steps is None or k in self.steps for k in range(call.step.total))
            if "step" in self.kept
            else 1
        )
        return 4 * numbers * call.images * len(self.maps.branches) * steps

    def handle(self, call: AttentionCall) -> Tensor:
        if self.current is None or call.index or probing.get():
            return call.run()
        output, call = call.ran()
        layout = self.family.layout(
            self.family.denoiser(self.pipe), self.current.arguments, call.site
        )
        groups = [[span.positions for span in of_image] for of_image in self.maps.spans]
        for branch in set(self.maps.branches) & set(self.current.branches):
            rows = self.current.rows(branch)
            found = related(call.rows(rows), layout.rows(rows), groups, self.maps.direction)
            found = (found if "head" in self.kept else found.mean(1, keepdim=True)).float()[
                :, None, None
            ]
            of_site = self.sums.setdefault((call.site.name, branch), [])
            if "step" in self.kept or not of_site:
                of_site.append(found)
            else:
                of_site[0] = of_site[0] + found
        return output

    def collected(self, count: int) -> dict[str, Tensor]:
        """[image branch step head *grid token] of every site that ran; ``count`` steps are in each
        sum."""
        ran = [name for name in self.maps.sites if (name, self.maps.branches[0]) in self.sums]
        self.maps.about["not_run"] = [name for name in self.maps.sites if name not in ran]
        of_branches = {
            name: [torch.cat(self.sums[name, branch], 2) for branch in self.maps.branches]
            for name in ran
        }
        return {
            name: (torch.cat(of_layer, 1) / count).cpu() for name, of_layer in of_branches.items()
        }

    def write_step(self) -> None:
        """The step whose calls are complete goes to the folder."""
        if self.folder is not None and self.sums:
            last = {
                name: getattr(self.maps, name)[-1:] for name in ("steps", "timesteps", "sigmas")
            }
            step = AttentionMaps(
                **{**vars(self.maps), **last, "layers": self.collected(1), "pictures": ()}
            )
            save(
                step,
                self.folder / f"step-{self.maps.steps[-1]:04}.safetensors",
                encoding=self.encoding,
            )
            self.sums.clear()

    def finish(self) -> None:
        maps = self.maps
        if unknown := set(maps.branches) - self.met:
            raise CouplingError(
                f"branch {sorted(unknown)} does not exist in this call; its branches are {tuple(sorted(self.met))}"
            )
        if not maps.steps:
            raise CouplingError(
                f"nothing was recorded: none of the steps {self.steps} among the {len(self.seen)} steps of this run"
            )
        if self.folder is None:
            maps.layers = self.collected(1 if "step" in self.kept else len(maps.steps))
        else:
            self.write_step()
            if len(maps.pictures):
                save_pictures(maps.pictures, self.folder)
            maps.layers = load(self.folder).layers


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
    family = family_of(pipe)
    cells = 0
    for site in where.select(family.sites(family.denoiser(pipe))):
        h, w = site.grid(height // pipe.vae_scale_factor, width // pipe.vae_scale_factor)
        cells += h * w * (site.heads if "head" in keep else 1)
    return 4 * cells * words * batch * branches * (steps if "step" in keep else 1)
