"""Search for the attention heads whose weakening serves an objective (HeadHunter, Ahn et al. 2025,
arXiv 2506.10978)."""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

from attncontrol.attention.edit import Editor
from attncontrol.attention.sites import Head, Where
from attncontrol.batch.chosen_heads import is_heads
from attncontrol.batch.generate import called
from attncontrol.batch.results import append_lines, read_lines
from attncontrol.errors import ResultsError
from attncontrol.running.session import attach
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import Heads, PerImage
from attncontrol.writing import put

Job = tuple[str, int]
"""(prompt, seed)."""

PictureScore = Callable[[Sequence[Any], Sequence[str]], Sequence[float]]
"""Pictures and their prompts -> scores, larger is better."""

_HALVING = ((0.25, 2 / 3), (0.5, 1 / 2), (1.0, 1.0))
"""After which share of the jobs which share of the heads stays: measured to choose more of the
right heads than halves do."""


@dataclass(frozen=True)
class Round:
    """Mean score of every head that was tried on top of the heads chosen before, over ``jobs``
    pictures each; ``without`` is that of the latter alone, in the first round that of plain
    pictures."""

    scores: Mapping[Head, float]
    jobs: Mapping[Head, int]
    chosen: tuple[Head, ...]
    without: float


@dataclass(frozen=True)
class HeadSearch:
    """Rounds in order; ``heads`` are all that were chosen, for ``perturb(heads=...)``."""

    rounds: tuple[Round, ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        return tuple(head for each in self.rounds for head in each.chosen)

    def write(self, file: Path) -> None:
        """JSON: {"heads": [[site, head], ...], "rounds": [{"chosen": [...], "without": score,
        "scores": [...]}, ...]}, where scores are [site, head, score, pictures]."""
        rounds = [
            {
                "chosen": each.chosen,
                "without": each.without,
                "scores": [[*head, score, each.jobs[head]] for head, score in each.scores.items()],
            }
            for each in self.rounds
        ]
        text = json.dumps({"heads": self.heads, "rounds": rounds}, indent=1)
        put(file, text.encode(), is_heads)


def search_heads(
    pipe: Any,
    jobs: Sequence[Job],
    objective: PictureScore,
    *,
    edit: Editor,
    scale: float,
    where: Where,
    rounds: int = 1,
    top_k: int = 3,
    halving: bool = False,
    batch: int = 8,
    cache: Path | None = None,
    progress: Callable[[Iterable[Any], int, str], Iterable[Any]] = lambda items, *_: items,
    **call: Any,
) -> HeadSearch:
    """Greedy: in every round each head of ``where`` joins those chosen so far and makes the
    pictures of ``jobs``; ``top_k`` heads with the best mean score are chosen.

    Pictures of several heads are made in one batch, where every row weakens a head of its own; they
    are those of single runs. With ``cache``, a file of one line per picture, an interrupted search
    goes on after its last batch, and nothing is made twice; a cache belongs to one pipeline,
    objective, edit, scale and call. ``halving`` drops the worst third of the heads after a quarter
    of the jobs, in a random order that is always the same, and half of the rest after half of them:
    an approximation that makes 0.6 of the pictures. ``call`` goes to the pipeline. The paper takes
    ``scale`` 3 without classifier-free guidance.
    """
    sites = where.select(attach(pipe).sites.values())
    pool = [(site.name, head) for site in sites for head in range(site.heads)]
    order = random.Random(0).sample(jobs, len(jobs)) if halving else jobs
    stages = _HALVING if halving else ((1.0, 1.0),)

    def made(chunk: Sequence[tuple[Heads, Job]]) -> list[float]:
        each = PerImage(tuple(heads for heads, _ in chunk))
        pictures = pictures_of(pipe, [job for _, job in chunk], edit, scale, each, call)
        return [float(score) for score in objective(pictures, [prompt for _, (prompt, _) in chunk])]

    known = _Known(made, batch, cache, progress)
    done: list[Round] = []
    for number in range(1, rounds + 1):
        base = tuple(head for each in done for head in each.chosen)
        rest = [head for head in pool if head not in base]
        done.append(_round(known, base, rest, order, stages, top_k, f"round {number}"))
    return HeadSearch(tuple(done))


class _Known:
    """Scores of head sets on jobs: made in batches, and kept in ``cache``."""

    def __init__(
        self,
        made: Callable[[Sequence[tuple[Heads, Job]]], list[float]],
        batch: int,
        cache: Path | None,
        progress: Callable[[Iterable[Any], int, str], Iterable[Any]],
    ):
        self.made, self.batch, self.cache, self.progress = made, batch, cache, progress
        lines = read_lines(cache) if cache else ()
        try:
            self.scores = {(key, (prompt, seed)): float(x) for key, prompt, seed, x in lines}
        except (TypeError, ValueError) as error:
            raise ResultsError(f"{cache} holds no scores of heads ({error})") from error

    def mean(self, heads: Heads, jobs: Sequence[Job]) -> float:
        return mean(self.scores[_key(heads), job] for job in jobs)

    def complete(self, sets: Sequence[Heads], jobs: Sequence[Job], title: str) -> None:
        """Makes the pictures whose scores are not known."""
        pairs = [(heads, job) for heads in sets for job in jobs]
        wanted = [(heads, job) for heads, job in pairs if (_key(heads), job) not in self.scores]
        chunks = [wanted[i : i + self.batch] for i in range(0, len(wanted), self.batch)]
        for chunk in self.progress(chunks, len(chunks), title):
            keys = [(_key(heads), job) for heads, job in chunk]
            new = dict(zip(keys, self.made(chunk), strict=True))
            self.scores |= new
            if self.cache:
                append_lines(self.cache, [(key, *job, score) for (key, job), score in new.items()])


def _round(
    known: _Known,
    base: tuple[Head, ...],
    pool: Sequence[Head],
    jobs: Sequence[Job],
    stages: Sequence[tuple[float, float]],
    top_k: int,
    title: str,
) -> Round:
    """Tries every head of ``pool`` on top of ``base``. A stage (share of the jobs, share of the
    heads that stay) drops the worst."""
    scores: dict[Head, float] = {}
    used: dict[Head, int] = {}
    alive = list(pool)
    for share, left in stages:
        part = jobs[: max(1, round(share * len(jobs)))]
        sets = [base, *((*base, head) for head in alive)]
        known.complete(sets, part, f"{title}, {len(alive)} heads")
        scores |= {head: known.mean((*base, head), part) for head in alive}
        used |= dict.fromkeys(alive, len(part))
        ranked = sorted(alive, key=lambda head: -scores[head])
        kept = {*ranked[: max(top_k, ceil(left * len(ranked)))]}
        # in their order: heads of a batch share the blocks before them
        alive = [head for head in alive if head in kept]
    return Round(scores, used, tuple(ranked[:top_k]), known.mean(base, jobs))


def _key(heads: Heads) -> str:
    """The head set, whatever its order."""
    return " ".join(f"{name}:{number}" for name, number in sorted(heads))


def pictures_of(
    pipe: Any,
    jobs: Sequence[Job],
    edit: Editor,
    scale: float,
    heads: Heads | PerImage,
    call: Mapping[str, Any],
) -> Any:
    """PIL images, or what else the pipeline is called for."""
    prompts = [prompt for prompt, _ in jobs]
    weakened = partial(perturb, pipe, edit, scale=scale, heads=heads)
    return called(pipe, prompts, [seed for _, seed in jobs], around=weakened, **call).images
