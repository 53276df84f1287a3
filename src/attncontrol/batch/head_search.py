"""Search for the attention heads whose weakening serves an objective (HeadHunter, Ahn et al. 2025,
arXiv 2506.10978)."""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from attncontrol.attention.edit import Editor
from attncontrol.attention.sites import Head, Where
from attncontrol.batch.results import append_lines, read_lines
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.running.session import attach
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.plan import Heads, PerImage

Job = tuple[str, int]
"""(prompt, seed)."""


Objective = Callable[[Sequence[Any], Sequence[str]], Sequence[float]]
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

    def save(self, file: Path) -> None:
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
        file.write_text(json.dumps({"heads": self.heads, "rounds": rounds}, indent=1), "utf-8")


@dataclass(frozen=True)
class Strength:
    """What heads do at strength ``u``: ``scores`` and ``pictures`` by seed, in order; ``shift``,
    the mean of the scores minus that of the plain pictures, in standard deviations (n - 1) of the
    plain ones over seeds.
    """

    u: float
    shift: float
    scores: tuple[float, ...]
    pictures: tuple[Any, ...]


def strengths(
    pipe: Any,
    prompt: str,
    seeds: Sequence[int],
    objective: Objective,
    heads: Heads,
    *,
    edit: Callable[[float], Editor] = SoftIdentity,
    us: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    scale: float = 3.0,
    batch: int = 8,
    **call: Any,
) -> tuple[Strength, ...]:
    """How the objective moves with u, the strength at which ``heads`` are weakened by ``edit(u)``;
    the first u must be 0, plain.

    Heads of a concept move it steadily with u (SoftPAG, Ahn et al. 2025, arXiv 2506.10978).
    ``call`` goes to the pipeline. Raises ValueError if the first u is not 0, for fewer than two
    seeds, and if all plain pictures score the same.
    """
    if not us or us[0] != 0 or len(seeds) < 2:
        raise ValueError(
            f"shifts are measured against u = 0 over at least two seeds, not u = {list(us)} over {len(seeds)} seeds"
        )
    made: list[Strength] = []
    for u in us:
        pictures: list[Any] = []
        for start in range(0, len(seeds), batch):
            jobs = [(prompt, seed) for seed in seeds[start : start + batch]]
            pictures.extend(_pictures(pipe, jobs, edit(u), scale, heads, call))
        scores = tuple(float(score) for score in objective(pictures, [prompt] * len(seeds)))
        plain = made[0].scores if made else scores
        if len(set(plain)) == 1:
            raise ValueError(
                f"the plain pictures of all {len(seeds)} seeds score {plain[0]}: there is no deviation to measure in"
            )
        made.append(
            Strength(u, (mean(scores) - mean(plain)) / stdev(plain), scores, tuple(pictures))
        )
    return tuple(made)


def load_heads(file: Path) -> Heads:
    """The heads of a saved search."""
    return [(name, head) for name, head in json.loads(file.read_text("utf-8"))["heads"]]


def search_heads(
    pipe: Any,
    jobs: Sequence[Job],
    objective: Objective,
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
    pool: list[Head] = [(site.name, head) for site in sites for head in range(site.heads)]
    order = random.Random(0).sample(jobs, len(jobs)) if halving else jobs
    known = {
        (key, (prompt, seed)): score
        for key, prompt, seed, score in (read_lines(cache) if cache else ())
    }

    def measured(chunk: Sequence[tuple[Heads, Job]]) -> list[float]:
        pictures = _pictures(
            pipe,
            [job for _, job in chunk],
            edit,
            scale,
            PerImage(tuple(heads for heads, _ in chunk)),
            call,
        )
        return [float(score) for score in objective(pictures, [prompt for _, (prompt, _) in chunk])]

    found: list[Round] = []
    for number in range(rounds):
        base = tuple(head for each in found for head in each.chosen)
        alive = [head for head in pool if head not in base]
        scores: dict[Head, float] = {}
        used: dict[Head, int] = {}
        for share, left in _HALVING if halving else [(1.0, 1.0)]:
            part = order[: max(1, round(share * len(order)))]
            wanted = [
                (heads, job) for heads in (base, *((*base, head) for head in alive)) for job in part
            ]
            wanted = [(heads, job) for heads, job in wanted if (_key(heads), job) not in known]
            chunks = [wanted[i : i + batch] for i in range(0, len(wanted), batch)]
            for chunk in progress(chunks, len(chunks), f"round {number + 1}, {len(alive)} heads"):
                made = {
                    (_key(heads), job): score
                    for (heads, job), score in zip(chunk, measured(chunk), strict=True)
                }
                known |= made
                if cache:
                    append_lines(cache, [(key, *job, score) for (key, job), score in made.items()])
            scores |= {
                head: mean(known[_key((*base, head)), job] for job in part) for head in alive
            }
            used |= dict.fromkeys(alive, len(part))
            ranked = sorted(alive, key=lambda head: -scores[head])
            kept = ranked[: max(top_k, ceil(left * len(ranked)))]
            alive = [
                head for head in alive if head in kept
            ]  # in their order: heads of a batch share the blocks before them
        found.append(
            Round(
                scores, used, tuple(ranked[:top_k]), mean(known[_key(base), job] for job in order)
            )
        )
    return HeadSearch(tuple(found))


def _key(heads: Heads) -> str:
    """The head set, whatever its order."""
    return " ".join(f"{name}:{number}" for name, number in sorted(heads))


def _pictures(
    pipe: Any,
    jobs: Sequence[Job],
    edit: Editor,
    scale: float,
    heads: Heads | PerImage,
    call: Mapping[str, Any],
) -> Any:
    """PIL images, or what else the pipeline is called for."""
    prompts, generators = (
        [prompt for prompt, _ in jobs],
        [torch.Generator().manual_seed(seed) for _, seed in jobs],
    )
    with perturb(pipe, edit, scale=scale, heads=heads):
        return pipe(prompt=prompts, generator=generators, **call).images
