"""``record``: keep the attention of a pipeline call, reduced while it runs."""

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from attncontrol.calls import DenoiserCall, probing
from attncontrol.errors import CouplingError
from attncontrol.families import Layout, family_of, text_mass
from attncontrol.maps import AttentionMaps
from attncontrol.processors import AttentionCall, tap
from attncontrol.sites import TEXT, Where
from attncontrol.steps import follow
from attncontrol.tokens import Span, Token, Words, resolve

Axis = Literal["step", "head"]


@contextmanager
def record(
    pipe: Any,
    words: Words | None = None,
    *,
    where: Where = TEXT,
    keep: Collection[Axis] = (),
    branches: Sequence[str] = ("cond",),
    steps: Collection[int] | None = None,
) -> Iterator[AttentionMaps]:
    """Records the attention from picture to text of one pipeline call; the pictures are bit-identical to those made without.

    ``words`` are words or phrases of the prompt ("cat", "red car", "cat#2"), or a mapping from prompt to words; None records
    every text position. Means over heads and steps are formed while the pipeline runs; ``keep`` keeps these axes. ``branches`` are
    "cond" and, under classifier-free guidance, "uncond". ``steps`` are the indices of the steps to record, None for all.

    Yields AttentionMaps, complete when the block ends. Raises WordError, SiteError, UnsupportedError; and
    CouplingError if nothing was recorded or if the pipeline is called twice.
    """
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    sites = {site.name: site for site in where.select(family.sites(denoiser))}
    maps = AttentionMaps()
    sums: dict[tuple[str, str], Tensor] = {}
    spans: tuple[tuple[Span, ...], ...] | None = None
    current: DenoiserCall | None = None
    seen: list[int] = []
    timesteps: list[float] = []
    met: set[str] = set()

    def begin(call: DenoiserCall) -> None:
        nonlocal spans
        read = functools.cache(lambda prompt: family.tokens(pipe, prompt, call.step.encoding))
        spans = None if words is None else resolve(read, call.step.prompts, words)
        maps.prompts = tuple(str(prompt) for prompt in call.step.prompts)
        maps.labels = _labels(read, maps.prompts, spans)

    def on_call(call: DenoiserCall) -> None:
        nonlocal current
        met.update(call.branches)
        if call.nth == 0:
            if seen and call.step.index <= seen[-1]:
                raise CouplingError("one record(...) block records one pipeline call; open a new block for the next call")
            if not seen:
                begin(call)
            seen.append(call.step.index)
            if steps is None or call.step.index in steps:
                timesteps.append(call.step.timestep)
        current = call if steps is None or call.step.index in steps else None

    def on_done() -> None:
        nonlocal current
        current = None

    def handler(call: AttentionCall) -> Tensor:
        if current is not None and call.index == 0 and not probing.get():
            output, call = call.ran()
            layout = family.layout(denoiser, current.arguments, call.site)
            for branch in set(branches) & set(current.branches):
                rows = current.rows(branch)
                found = _reduced(call.rows(rows), spans, layout.rows(rows), "head" in keep)
                found = found[:, None, None]  # batch branch step heads *grid token
                at = (call.site.name, branch)
                if at not in sums:
                    sums[at] = found
                else:
                    sums[at] = torch.cat([sums[at], found], 2) if "step" in keep else sums[at] + found
            return output
        return call.run()

    with follow(pipe, family, on_call, on_done), tap(denoiser, sites, handler):
        yield maps
    if unknown := set(branches) - met:
        raise CouplingError(f"branch {sorted(unknown)} does not exist in this call; its branches are {tuple(sorted(met))}")
    if not sums:
        raise CouplingError(f"nothing was recorded: none of the steps {steps} among the {len(seen)} steps of this run")
    count = 1 if "step" in keep else len(timesteps)
    recorded = [name for name in sites if (name, branches[0]) in sums]
    maps.layers = {name: (torch.cat([sums[name, b] for b in branches], 1) / count).cpu() for name in recorded}
    maps.branches, maps.timesteps = tuple(branches), tuple(timesteps)


def _reduced(call: AttentionCall, spans: tuple[tuple[Span, ...], ...] | None, layout: Layout, heads: bool) -> Tensor:
    """[batch heads *grid token], float32, the text axis summed to spans and the heads averaged unless kept."""
    if spans is None and layout.text == slice(None):
        probabilities = call.probabilities().unflatten(2, layout.grid)
    elif spans is None:
        positions = range(len(range(call.key.shape[2])[layout.text]))
        probabilities = text_mass(call, layout, [[(k,) for k in positions]] * len(call.query))
    else:
        probabilities = text_mass(call, layout, [[span.positions for span in of_image] for of_image in spans])
    return (probabilities if heads else probabilities.mean(1, keepdim=True)).float()


def _labels(
    read: Callable[[str], tuple[Token, ...]], prompts: tuple[str, ...], spans: tuple[tuple[Span, ...], ...] | None
) -> tuple[tuple[str, ...], ...]:
    if spans is not None:
        return tuple(tuple(span.text for span in of_image) for of_image in spans)
    return tuple(tuple(token.text for token in read(prompt)) for prompt in prompts)


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
    """Bytes that a recording of ``words`` words will hold for pictures of height x width pixels (float32)."""
    family = family_of(pipe)
    cells = 0
    for site in where.select(family.sites(family.denoiser(pipe))):
        h, w = site.grid(height // pipe.vae_scale_factor, width // pipe.vae_scale_factor)
        cells += h * w * (site.heads if "head" in keep else 1)
    return 4 * cells * words * batch * branches * (steps if "step" in keep else 1)
