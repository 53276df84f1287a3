"""How an objective moves with the strength at which heads are weakened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from attncontrol.attention.edit import Editor
from attncontrol.batch.head_search import PictureScore, pictures_of
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.errors import ResultsError, SettingError
from attncontrol.verbs.places import Heads


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
    objective: PictureScore,
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
    ``call`` goes to the pipeline. Raises SettingError if the first u is not 0 and for fewer than
    two seeds, ResultsError if all plain pictures score the same.
    """
    if not us or us[0] != 0 or len(seeds) < 2:
        raise SettingError(
            "shifts are measured against u = 0 over at least two seeds, "
            f"not u = {list(us)} over {len(seeds)} seeds"
        )
    made: list[Strength] = []
    for u in us:
        pictures: list[Any] = []
        for start in range(0, len(seeds), batch):
            jobs = [(prompt, seed) for seed in seeds[start : start + batch]]
            pictures.extend(pictures_of(pipe, jobs, edit(u), scale, heads, call))
        scores = tuple(float(score) for score in objective(pictures, [prompt] * len(seeds)))
        plain = made[0].scores if made else scores
        if len(set(plain)) == 1:
            raise ResultsError(
                f"the plain pictures of all {len(seeds)} seeds score {plain[0]}: "
                "there is no deviation to measure in"
            )
        made.append(
            Strength(u, (mean(scores) - mean(plain)) / stdev(plain), scores, tuple(pictures))
        )
    return tuple(made)
