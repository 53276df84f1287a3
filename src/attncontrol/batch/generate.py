"""Generation for scripts: a prompt and seeds in, pictures with word maps and losses out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attncontrol.batch.memory import peak_memory
from attncontrol.losses.a_star import a_star
from attncontrol.losses.apart import Apart
from attncontrol.losses.attend_and_excite import AttendAndExcite
from attncontrol.losses.attention_refocusing import AttentionRefocusing
from attncontrol.losses.auto import Auto
from attncontrol.losses.boxdiff import BoxDiff
from attncontrol.losses.conform import CONFORM
from attncontrol.losses.divide_and_bind import DivideAndBind
from attncontrol.losses.ebama import EBAMA
from attncontrol.losses.initno import InitNO
from attncontrol.losses.layout_guidance import LayoutGuidance
from attncontrol.losses.placement import placement
from attncontrol.losses.predicated import Predicated
from attncontrol.losses.self_cross import SelfCross
from attncontrol.losses.syngen import SynGen
from attncontrol.objectives.boxes import Layouts
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective, Sum
from attncontrol.prompts.words import Groups, Words
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import Trace, TraceStep, steer

METHODS: Mapping[str, Callable[[Groups | None], Objective | Sum]] = {
    "auto": Auto,
    "attend-and-excite": AttendAndExcite,
    "syngen": SynGen,
    "a-star": a_star,
    "apart": lambda words: 10.0 * Apart(words),
    "ebama": EBAMA,
    "conform": CONFORM,
    "divide-and-bind": DivideAndBind,
    "predicated": Predicated,
    "initno": InitNO,
    "self-cross": lambda words: AttendAndExcite(words) + SelfCross(words),
}
"""Methods that know the words of a prompt; None: by its parse."""


LAYOUT_METHODS: Mapping[str, Callable[[Layouts], Objective | Sum]] = {
    "attention-refocusing": AttentionRefocusing,
    "boxdiff": BoxDiff,
    "layout-guidance": LayoutGuidance,
    "placement": placement,
}
"""Methods that know where the words shall be."""


@dataclass(frozen=True)
class Picture:
    """One generated picture. ``maps`` are word maps [height width]; ``losses`` and ``refinements``
    are per guided step; ``memory`` is what its pipeline call held at most above what was held
    before, MiB.
    """

    prompt: str
    seed: int
    method: str
    image: Image.Image
    maps: Mapping[str, Tensor]
    losses: tuple[float, ...]
    refinements: tuple[int, ...]
    seconds: float
    memory: float


def generate(
    pipe: Any,
    jobs: Sequence[tuple[str, int]],
    words: Words | None,
    *,
    method: str = "plain",
    objective: Objective | Sum | None = None,
    descent: Descent | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    batch: int = 4,
    **call: Any,
) -> Iterator[Picture]:
    """Pictures of ``jobs``, (prompt, seed) each, with maps of ``words``; steered by an objective,
    if given, called ``method``.

    A picture does not depend on its batch. ``around`` makes another context for every call of the
    pipeline; ``call`` goes to the pipeline.
    """
    for start in range(0, len(jobs), batch):
        prompts, seeds = zip(*jobs[start : start + batch], strict=True)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(around())
            held = stack.enter_context(peak_memory(pipe.device))
            maps = stack.enter_context(record(pipe, words)) if words else None
            trace = (
                None
                if objective is None
                else stack.enter_context(steer(pipe, objective, descent=descent))
            )
            images = pipe(list(prompts), generator=generators, **call).images
        seconds = (time.perf_counter() - began) / len(seeds)
        steps: list[TraceStep] = trace.steps if isinstance(trace, Trace) else []
        labels, means = (maps.labels, maps.mean()) if maps else (((),) * len(seeds), None)
        for i, image in enumerate(images):
            found = (
                {}
                if means is None
                else {word: means[i, ..., k] for k, word in enumerate(labels[i])}
            )
            losses, refinements = (
                tuple(step.losses[i] for step in steps),
                tuple(step.refinements[i] for step in steps),
            )
            yield Picture(
                prompts[i], seeds[i], method, image, found, losses, refinements, seconds, held[0]
            )
