"""``record``: keep the attention of a pipeline call, reduced while it runs."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from attncontrol.errors import CouplingError
from attncontrol.families import Family, family_of
from attncontrol.maps import AttentionMaps, summed
from attncontrol.processors import AttentionCall, tap
from attncontrol.sites import Where
from attncontrol.steps import DenoiserCall, follow, probing
from attncontrol.tokens import Span, Words, resolve, tokenize

Axis = Literal["step", "head"]
CROSS = Where(kind="cross")


@contextmanager
def record(
    pipe: Any,
    words: Words | None = None,
    *,
    where: Where = CROSS,
    keep: Collection[Axis] = (),
    branches: Sequence[str] = ("cond",),
    steps: Collection[int] | None = None,
) -> Iterator[AttentionMaps]:
    """Records the cross-attention of one pipeline call; the pictures are bit-identical to those made without.

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
    sums: dict[str, Tensor] = {}
    spans: tuple[tuple[Span, ...], ...] | None = None
    current: DenoiserCall | None = None
    seen: list[int] = []
    timesteps: list[float] = []

    def on_call(call: DenoiserCall) -> None:
        nonlocal current, spans
        if seen and call.step.index <= seen[-1]:
            raise CouplingError("one record(...) block records one pipeline call; open a new block for the next call")
        unknown = set(branches) - set(call.branches)
        if unknown:
            raise CouplingError(f"branch {sorted(unknown)} does not exist in this call; its branches are {call.branches}")
        if not seen:
            spans = None if words is None else resolve(family.tokenizer(pipe), call.step.prompts, words)
            maps.prompts = tuple(str(prompt) for prompt in call.step.prompts)
            maps.labels = _labels(family, pipe, maps.prompts, spans)
        seen.append(call.step.index)
        if steps is None or call.step.index in steps:
            timesteps.append(call.step.timestep)
            current = call

    def on_done() -> None:
        nonlocal current
        current = None

    def handler(call: AttentionCall) -> Tensor:
        if current is not None and call.index == 0 and not probing.get():
            grid = call.site.grid(*current.sample.shape[-2:])
            found = torch.stack([_reduced(call.rows(current.rows(b)), spans, grid, "head" in keep) for b in branches], 1)
            found = found.unsqueeze(2)  # batch branch step heads height width token
            if call.site.name not in sums:
                sums[call.site.name] = found
            elif "step" in keep:
                sums[call.site.name] = torch.cat([sums[call.site.name], found], 2)
            else:
                sums[call.site.name] += found
        return call.run()

    with follow(pipe, family, on_call, on_done), tap(denoiser, sites, handler):
        yield maps
    if not sums:
        raise CouplingError(f"nothing was recorded: none of the steps {steps} among the {len(seen)} steps of this run")
    count = 1 if "step" in keep else len(timesteps)
    maps.layers = {name: (sums[name] / count).cpu() for name in sites if name in sums}
    maps.branches, maps.timesteps = tuple(branches), tuple(timesteps)


def _reduced(call: AttentionCall, spans: tuple[tuple[Span, ...], ...] | None, grid: tuple[int, int], heads: bool) -> Tensor:
    """[batch heads height width token], float32, the text axis summed to spans and the heads averaged unless kept."""
    probabilities = call.probabilities()
    if spans is not None and len(set(spans)) == 1:
        probabilities = summed(probabilities, spans[0])
    elif spans is not None:
        probabilities = torch.stack([summed(p, s) for p, s in zip(probabilities, spans, strict=True)])
    probabilities = probabilities if heads else probabilities.mean(1, keepdim=True)
    return probabilities.float().unflatten(2, grid)


def _labels(
    family: Family, pipe: Any, prompts: tuple[str, ...], spans: tuple[tuple[Span, ...], ...] | None
) -> tuple[tuple[str, ...], ...]:
    if spans is not None:
        return tuple(tuple(span.text for span in of_image) for of_image in spans)
    return tuple(tuple(token.text for token in tokenize(family.tokenizer(pipe), prompt)) for prompt in prompts)


def estimate_bytes(
    pipe: Any,
    *,
    words: int,
    height: int,
    width: int,
    steps: int,
    batch: int = 1,
    branches: int = 1,
    where: Where = CROSS,
    keep: Collection[Axis] = (),
) -> int:
    """Bytes that a recording of ``words`` words will hold for pictures of height x width pixels (float32)."""
    family = family_of(pipe)
    cells = 0
    for site in where.select(family.sites(family.denoiser(pipe))):
        h, w = site.grid(height // pipe.vae_scale_factor, width // pipe.vae_scale_factor)
        cells += h * w * (site.heads if "head" in keep else 1)
    return 4 * cells * words * batch * branches * (steps if "step" in keep else 1)
