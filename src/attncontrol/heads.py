"""Search for the attention heads whose weakening serves an objective (HeadHunter, Ahn et al. 2025, arXiv 2506.10978)."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.families import family_of
from attncontrol.perturb import Edit, Heads, PerImage, perturb
from attncontrol.sites import Where

Head = tuple[str, int]
"""(site, head)."""
Job = tuple[str, int]
"""(prompt, seed)."""
Objective = Callable[[Sequence[Any], Sequence[str]], Sequence[float]]
"""Pictures and their prompts -> scores, larger is better."""


@dataclass(frozen=True)
class Round:
    """Mean score of every head that was tried on top of the heads chosen before, over ``jobs`` pictures each."""

    scores: Mapping[Head, float]
    jobs: Mapping[Head, int]
    chosen: tuple[Head, ...]


@dataclass(frozen=True)
class HeadSearch:
    """Rounds in order; ``heads`` are all that were chosen, for ``perturb(heads=...)``."""

    rounds: tuple[Round, ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        return tuple(head for each in self.rounds for head in each.chosen)

    def save(self, file: Path) -> None:
        """JSON: {"heads": [[site, head], ...], "rounds": [{"chosen": [...], "scores": [[site, head, score, pictures], ...]}]}."""
        rounds = [
            {"chosen": each.chosen, "scores": [[*head, score, each.jobs[head]] for head, score in each.scores.items()]}
            for each in self.rounds
        ]
        file.write_text(json.dumps({"heads": self.heads, "rounds": rounds}, indent=1), "utf-8")


@dataclass(frozen=True)
class Strength:
    """What heads do at strength ``u``: ``scores`` and ``pictures`` by seed, in order; ``shift``, the mean of the scores minus that
    of the plain pictures, in standard deviations (n - 1) of the plain ones over seeds.
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
    edit: Callable[[float], Edit] = SoftIdentity,
    us: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    scale: float = 3.0,
    batch: int = 8,
    **call: Any,
) -> tuple[Strength, ...]:
    """How the objective moves with u, the strength at which ``heads`` are weakened by ``edit(u)``; the first u must be 0, plain.

    Heads of a concept move it steadily with u (SoftPAG, Ahn et al. 2025, arXiv 2506.10978). ``call`` goes to the pipeline.
    Raises ValueError if the first u is not 0, for fewer than two seeds, and if all plain pictures score the same.
    """
    if not us or us[0] != 0 or len(seeds) < 2:
        raise ValueError(f"shifts are measured against u = 0 over at least two seeds, not u = {list(us)} over {len(seeds)} seeds")
    made: list[Strength] = []
    for u in us:
        pictures: list[Any] = []
        for start in range(0, len(seeds), batch):
            jobs = [(prompt, seed) for seed in seeds[start : start + batch]]
            pictures.extend(_pictures(pipe, jobs, edit(u), scale, heads, call))
        scores = tuple(float(score) for score in objective(pictures, [prompt] * len(seeds)))
        plain = made[0].scores if made else scores
        if len(set(plain)) == 1:
            raise ValueError(f"the plain pictures of all {len(seeds)} seeds score {plain[0]}: there is no deviation to measure in")
        made.append(Strength(u, (mean(scores) - mean(plain)) / stdev(plain), scores, tuple(pictures)))
    return tuple(made)


def load_heads(file: Path) -> Heads:
    """The heads of a saved search."""
    return [(name, head) for name, head in json.loads(file.read_text("utf-8"))["heads"]]


def search_heads(
    pipe: Any,
    jobs: Sequence[Job],
    objective: Objective,
    *,
    edit: Edit,
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
    """Greedy: in every round each head of ``where`` joins those chosen so far and makes the pictures of ``jobs``; ``top_k`` heads
    with the best mean score are chosen.

    Pictures of several heads are made in one batch, where every row weakens a head of its own; they are those of single runs. With
    ``cache``, a file of one line per picture, an interrupted search goes on after its last batch, and nothing is made twice.
    ``halving`` drops the worse half of the heads after a quarter and after half of the jobs: an approximation, faster by about 2.
    ``call`` goes to the pipeline. The paper takes ``scale`` 3 without classifier-free guidance.
    """
    family = family_of(pipe)
    sites = where.select(family.sites(family.denoiser(pipe)))
    pool: list[Head] = [(site.name, head) for site in sites for head in range(site.heads)]
    known = _read(cache)
    found: list[Round] = []
    for number in range(rounds):
        base = tuple(head for each in found for head in each.chosen)
        alive = [head for head in pool if head not in base]
        used: dict[Head, int] = {}
        for share in (0.25, 0.5, 1.0) if halving else (1.0,):
            part = jobs[: max(1, round(share * len(jobs)))]
            wanted = [(head, job) for head in alive for job in part if (_key(base, head), job) not in known]
            chunks = [wanted[i : i + batch] for i in range(0, len(wanted), batch)]
            for chunk in progress(chunks, len(chunks), f"round {number + 1}, {len(alive)} heads"):
                scores = _scores(pipe, chunk, base, objective, edit, scale, call)
                known |= {(_key(base, head), job): score for (head, job), score in zip(chunk, scores, strict=True)}
                _append(cache, [(_key(base, head), job, score) for (head, job), score in zip(chunk, scores, strict=True)])
            means = {head: _mean(known, base, head, part) for head in alive}
            used |= dict.fromkeys(alive, len(part))
            ranked = sorted(alive, key=lambda head: -means[head])
            if share < 1:
                alive = ranked[: max(top_k, len(ranked) // 2)]
        final = {head: _mean(known, base, head, jobs[: used[head]]) for head in used}
        found.append(Round(final, used, tuple(ranked[:top_k])))
    return HeadSearch(tuple(found))


def _mean(known: Mapping[tuple[str, Job], float], base: tuple[Head, ...], head: Head, jobs: Sequence[Job]) -> float:
    return sum(known[_key(base, head), job] for job in jobs) / len(jobs)


def _key(base: tuple[Head, ...], head: Head) -> str:
    """The head set, whatever its order."""
    return " ".join(f"{name}:{number}" for name, number in sorted((*base, head)))


def _scores(
    pipe: Any, chunk: Sequence[tuple[Head, Job]], base: tuple[Head, ...], objective: Objective, edit: Edit, scale: float, call: Any
) -> list[float]:
    rows = PerImage(tuple((*base, head) for head, _ in chunk))
    pictures = _pictures(pipe, [job for _, job in chunk], edit, scale, rows, call)
    return [float(score) for score in objective(pictures, [prompt for _, (prompt, _) in chunk])]


def _pictures(pipe: Any, jobs: Sequence[Job], edit: Edit, scale: float, heads: Heads | PerImage, call: Mapping[str, Any]) -> Any:
    """PIL images, or what else the pipeline is called for."""
    prompts, generators = [prompt for prompt, _ in jobs], [torch.Generator().manual_seed(seed) for _, seed in jobs]
    with perturb(pipe, edit, scale=scale, heads=heads):
        return pipe(prompt=prompts, generator=generators, **call).images


def _read(cache: Path | None) -> dict[tuple[str, Job], float]:
    if cache is None or not cache.exists():
        return {}
    return {(key, (prompt, seed)): score for key, prompt, seed, score in _lines(cache)}


def _lines(cache: Path) -> Iterator[tuple[str, str, int, float]]:
    for line in cache.read_text("utf-8").splitlines():
        try:
            key, prompt, seed, score = json.loads(line)
        except ValueError:  # the last line of a killed run
            continue
        yield key, prompt, seed, score


def _append(cache: Path | None, rows: Sequence[tuple[str, Job, float]]) -> None:
    if cache is None:
        return
    with cache.open("a", encoding="utf-8") as lines:
        for key, (prompt, seed), score in rows:
            lines.write(json.dumps([key, prompt, seed, score]) + "\n")
