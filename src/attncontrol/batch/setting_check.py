"""Does the setting of a test-time loss fit a model that no scorer knows? Seeds plain and guided."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from attncontrol.batch.appearance import Appearance, appearance, outside
from attncontrol.batch.generate import called
from attncontrol.batch.verdicts import FACTOR, SeedCheck, Verdict, remedy, together
from attncontrol.objectives.descent import Descent, Relative, shortened
from attncontrol.objectives.objective import Objective, ObjectiveLike, Sum, as_objective, terms_of
from attncontrol.verbs.steer import TraceStep


@dataclass(frozen=True)
class SettingCheck:
    """The verdict of ``verdicts`` on a setting, what to change (empty if it fits), the step size
    that was used, and what every seed has shown."""

    verdict: Verdict
    remedy: str
    step_size: float | Relative
    seeds: tuple[SeedCheck, ...]


def check_setting(
    pipe: Any,
    objective: ObjectiveLike,
    prompt: str,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    descent: Descent | None = None,
    batch: int = 3,
    **call: Any,
) -> SettingCheck:
    """Draws the seeds plain and guided and says whether the latents move too little, too far, or
    as they should; ``verdicts`` has the rule.

    The plain run is steered by nothing, with losses: its pictures are those of the pipeline, bit
    for bit. ``descent`` and the arguments ``call`` of the pipeline are as for ``steer``. Raises
    what ``steer`` does, NonFiniteError for a step so large that the network overflows.

        check_setting(pipe, SynGen(), "a red cat and a blue frog").verdict
    """
    objective = as_objective(objective)
    descent = descent or objective.descent
    jobs: dict[str, Any] = {"prompt": prompt, "seeds": seeds, "batch": batch, **call}
    plain = draw(pipe, *still(objective, descent), **jobs)
    guided = draw(pipe, objective, descent, **jobs)
    return compare(plain, guided, searched=objective.search is not None)


def still(objective: Objective, descent: Descent) -> tuple[Objective, Descent]:
    """The same losses in the same steps, of pictures that nothing moves."""
    if objective.search is not None:
        objective = _WithoutSearch(terms_of(objective))
    return objective, replace(descent, step_size=0.0, max_refinements=0)


@dataclass(frozen=True)
class Drawn:
    """A picture and the steps of its guidance, in which it is the image ``place``."""

    seed: int
    image: Image.Image
    step_size: float | Relative
    steps: tuple[TraceStep, ...]
    place: int


def draw(
    pipe: Any,
    objective: Objective,
    descent: Descent,
    prompt: str,
    seeds: Sequence[int],
    batch: int = 3,
    **call: Any,
) -> list[Drawn]:
    """The picture of every seed, steered."""
    found: list[Drawn] = []
    for start in range(0, len(seeds), batch):
        chunk = seeds[start : start + batch]
        prompts = [prompt] * len(chunk)
        made = called(pipe, prompts, chunk, objective=objective, descent=descent, **call)
        size = made.trace.step_size if made.trace is not None else 0.0
        pairs = enumerate(zip(chunk, made.images, strict=True))
        found += [Drawn(seed, image, size, made.steps, place) for place, (seed, image) in pairs]
    return found


def compare(
    plain: Sequence[Drawn], guided: Sequence[Drawn], *, searched: bool = False
) -> SettingCheck:
    """The same seeds without and with guidance. ``searched``: the first move is that of a search
    of the noise, which leaves it a noise, and does not count."""
    known = [appearance(drawn.image) for drawn in plain]
    pairs = zip(plain, guided, known, strict=True)
    seeds = tuple(_compared(*pair, known, searched) for pair in pairs)
    size = guided[0].step_size
    return SettingCheck(together(seeds), remedy(seeds, size), size, seeds)


def _compared(
    plain: Drawn, guided: Drawn, look: Appearance, known: Sequence[Appearance], searched: bool
) -> SeedCheck:
    losses = {step.index: step.losses[guided.place] for step in guided.steps}
    before = {step.index: step.losses[plain.place] for step in plain.steps}
    new = appearance(guided.image)
    return SeedCheck(
        seed=guided.seed,
        moves=tuple(
            step.moves[guided.place] / shortened(step.total) for step in guided.steps[searched:]
        ),
        refinements=tuple(step.refinements[guided.place] for step in guided.steps),
        losses=tuple(losses.values()),
        plain_losses=tuple(before[index] for index in losses),
        appearance=new,
        plain_appearance=look,
        left=outside(new, known, FACTOR),
    )


@dataclass(frozen=True)
class _WithoutSearch(Sum):
    """Terms from the noise as it comes."""

    @property
    def search(self) -> None:
        return None
