"""How well word maps hit the objects they name: per site, per head and per timestep, on pictures whose masks are known.

Each picture is encoded and noised to the level of a denoising step; one forward of the conditional branch gives its maps.

    pointing   share of words whose map peaks inside the object's mask
    iou        mean |H and M| / |H or M|, where H is the map above half its range and M the mask

Maps are resized bilinearly to the size of the mask.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.calls import DenoiserCall, aside
from attncontrol.families import Family, family_of, text_mass
from attncontrol.processors import AttentionCall, tap
from attncontrol.sites import TEXT, Site, Where
from attncontrol.steps import follow
from attncontrol.tokens import find

ALL = "all sites"


@dataclass(frozen=True)
class Example:
    """A picture (height, width, 3) uint8, its prompt, and for each word the mask (height, width) of what it names."""

    picture: np.ndarray
    prompt: str
    masks: dict[str, np.ndarray]


@dataclass(frozen=True)
class Score:
    """``site`` is a module path, or ``all sites`` for the mean of all. ``head`` None is the mean of the heads."""

    site: str
    head: int | None
    timestep: float
    pointing: float
    iou: float
    n: int


def score_sites(
    pipe: Any,
    examples: Sequence[Example],
    *,
    steps: int = 10,
    at: Iterable[int] = (1, 3, 5, 7),
    heads: bool = False,
    where: Where = TEXT,
    batch: int = 16,
    seed: int = 0,
    **call: Any,
) -> list[Score]:
    """Scores of every site, each timestep by itself, with ``heads`` also of every head.

    ``at`` are the indices of the steps of a run of ``steps`` whose noise levels are used; ``call`` goes to the pipeline, which is
    stopped after the last of them. Raises WordError if a word is not in its prompt.
    """
    hits: dict[tuple[str, int | None, float], list[tuple[bool, float]]] = {}
    for start in range(0, len(examples), batch):
        chunk = examples[start : start + batch]
        for timestep, maps in _maps(pipe, chunk, set(at), steps, where, seed + start, call):
            for key, of_images in _grouped(maps, heads):
                kept = hits.setdefault((*key, timestep), [])
                for example, words in zip(chunk, of_images, strict=True):
                    kept += [_score(word, mask) for word, mask in zip(words, example.masks.values(), strict=True)]
    rows = []
    for (site, head, timestep), scored in hits.items():
        pointing, iou = np.mean(scored, axis=0)
        rows.append(Score(site, head, timestep, float(pointing), float(iou), len(scored)))
    return rows


def mean_over_timesteps(scores: Sequence[Score]) -> list[Score]:
    """One score per site and head; its timestep is the mean of theirs."""
    groups: dict[tuple[str, int | None], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.site, score.head), []).append(score)
    rows = []
    for (site, head), of in groups.items():
        timestep, pointing, iou = np.mean([(s.timestep, s.pointing, s.iou) for s in of], axis=0).tolist()
        rows.append(Score(site, head, timestep, pointing, iou, of[0].n))
    return rows


class _Done(Exception):  # noqa: N818 - a signal, not an error
    """Ends the pipeline's run."""


Maps = dict[str, list[Tensor]]
"""By site, for every picture [word heads height width]."""


def _maps(
    pipe: Any, examples: Sequence[Example], at: set[int], steps: int, where: Where, seed: int, call: dict[str, Any]
) -> Iterator[tuple[float, Maps]]:
    """The maps of the noised pictures at each of the steps ``at``, by timestep."""
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    sites = {site.name: site for site in where.select(family.sites(denoiser))}
    pictures = torch.from_numpy(np.stack([e.picture for e in examples])).permute(0, 3, 1, 2).float() / 127.5 - 1
    clean = family.encode(pipe, pictures)
    noise = torch.stack(
        [torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed + i)) for i in range(len(clean))]
    )
    found: list[tuple[float, Maps]] = []

    def groups(part: DenoiserCall) -> list[list[tuple[int, ...]]]:
        encoding = part.step.encoding
        return [[find(family.tokens(pipe, e.prompt, encoding), e.prompt, word).positions for word in e.masks] for e in examples]

    def on_call(step: DenoiserCall) -> None:
        if step.nth or step.step.index not in at:
            return
        timestep = pipe.scheduler.timesteps[step.step.index]
        noisy = _noised(pipe.scheduler, clean, noise, timestep).to(step.latents) * step.step.scale
        part = step.select(torch.arange(len(examples)) + step.rows("cond").start).with_latents(noisy)
        found.append((float(timestep), _probe(denoiser, family, sites, part, groups(part))))
        if len(found) == len(at):
            raise _Done

    height, width = examples[0].picture.shape[:2]
    arguments = {"num_inference_steps": steps, "height": height, "width": width, "output_type": "latent"} | call
    with suppress(_Done), follow(pipe, family, on_call):
        pipe([e.prompt for e in examples], generator=torch.Generator().manual_seed(0), **arguments)
    yield from found


@torch.no_grad()
def _probe(denoiser: Any, family: Family, sites: dict[str, Site], part: DenoiserCall, groups: list[list[tuple[int, ...]]]) -> Maps:
    """One forward of the denoiser; nothing else sees it."""
    maps: Maps = {}

    def keep(call: AttentionCall) -> Tensor:
        if call.index == 0:
            mass = text_mass(call, family.layout(denoiser, part.arguments, call.site), groups)
            maps[call.site.name] = [m[..., : len(g)].permute(3, 0, 1, 2).float() for m, g in zip(mass, groups, strict=True)]
        return call.run()

    with aside(), tap(denoiser, sites, keep):
        denoiser.forward(**part.arguments)  # not __call__: contexts see only the pipeline's own calls
    return maps


def _grouped(maps: Maps, heads: bool) -> Iterator[tuple[tuple[str, int | None], list[Tensor]]]:
    """[word height width] of every picture, for all sites together, every site and, if asked, every head."""
    means = {site: [words.mean(1) for words in of_images] for site, of_images in maps.items()}
    side = max((words[0].shape[-2:] for words in means.values()), key=lambda grid: grid[0] * grid[1])
    resized = [[F.interpolate(words[None], side, mode="bilinear")[0] for words in of_images] for of_images in means.values()]
    yield (ALL, None), [torch.stack(of_image).mean(0) for of_image in zip(*resized, strict=True)]
    for site, of_images in maps.items():
        yield (site, None), means[site]
        for head in range(of_images[0].shape[1] if heads else 0):
            yield (site, head), [words[:, head] for words in of_images]


def _score(word: Tensor, mask: np.ndarray) -> tuple[bool, float]:
    """(peak inside, overlap) of one map."""
    full = F.interpolate(word[None, None], mask.shape, mode="bilinear")[0, 0].numpy()
    peak = np.unravel_index(full.argmax(), full.shape)
    high = full > (full.min() + full.max()) / 2
    return bool(mask[peak]), float((high & mask).sum() / max((high | mask).sum(), 1))


def _noised(scheduler: Any, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """The latents that the scheduler's own forward process reaches at a timestep of its schedule."""
    if hasattr(scheduler, "scale_noise"):  # rectified flow
        noisy: Tensor = scheduler.scale_noise(clean, timestep[None], noise)
        return noisy
    return scheduler.add_noise(clean, noise, timestep[None])
