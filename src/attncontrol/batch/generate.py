"""Generation for scripts: a prompt and seeds in, pictures with word maps and losses out."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attncontrol.attention.sites import Where
from attncontrol.batch.memory import peak_memory
from attncontrol.families.encoder import as_called
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import ObjectiveLike
from attncontrol.prompts.words import Words
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import Trace, TraceStep, steer
from attncontrol.verbs.wish import Axis


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


@dataclass(frozen=True)
class Called:
    """What a call of a pipeline gave: PIL images, or what else it was called for. ``seconds`` are
    of the whole, ``memory`` is as of ``Picture``."""

    images: Any
    maps: AttentionMaps | None
    trace: Trace | None
    seconds: float
    memory: float

    @property
    def steps(self) -> tuple[TraceStep, ...]:
        return tuple(self.trace.steps) if self.trace is not None else ()


def called(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    words: Words | None = None,
    keep: Collection[Axis] = (),
    objective: ObjectiveLike | None = None,
    steered: tuple[int, ...] | None = None,
    descent: Descent | None = None,
    where: Where | None = None,
    **call: Any,
) -> Called:
    """One call of a pipeline, in which every picture has a prompt and a seed of its own: what all
    commands, searches and jobs make pictures by.

    It is inside of ``around()``, records ``words``, if given, and is steered by an objective, if
    given, all its pictures unless ``steered`` has the numbers of some; ``call`` are further
    arguments, a negative prompt once for every prompt.
    """
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(around())
        held = stack.enter_context(peak_memory(pipe.device))
        maps = stack.enter_context(record(pipe, words, keep=keep)) if words else None
        trace = None
        if objective is not None:
            trace = stack.enter_context(
                steer(pipe, objective, where=where, descent=descent, images=steered)
            )
        arguments = _repeated(pipe, call, len(prompts))
        images = pipe(generator=generators, **arguments, prompt=as_called(pipe, prompts))[0]
    return Called(images, maps, trace, time.perf_counter() - began, held[0])


def generate(
    pipe: Any,
    jobs: Sequence[tuple[str, int]],
    words: Words | None,
    *,
    method: str = "plain",
    objective: ObjectiveLike | None = None,
    steered: tuple[int, ...] | None = None,
    descent: Descent | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    batch: int = 4,
    **call: Any,
) -> Iterator[Picture]:
    """Pictures of ``jobs``, (prompt, seed) each, with maps of ``words``; steered by an objective,
    if given, called ``method``, of each batch those of the numbers ``steered``.

    A picture does not depend on its batch. ``around`` makes another context for every call of the
    pipeline; ``call`` goes to the pipeline, a negative prompt once for every prompt.
    """
    for start in range(0, len(jobs), batch):
        prompts, seeds = zip(*jobs[start : start + batch], strict=True)
        found = called(
            pipe, prompts, seeds, around=around, words=words, objective=objective, steered=steered,
            descent=descent, **call,
        )  # fmt: skip
        of_words = _word_maps(found.maps) if found.maps else [{}] * len(seeds)
        for i, image in enumerate(found.images):
            losses = tuple(step.losses[i] for step in found.steps)
            refinements = tuple(step.refinements[i] for step in found.steps)
            made = (image, of_words[i], losses, refinements)
            seconds = found.seconds / len(seeds)
            yield Picture(prompts[i], seeds[i], method, *made, seconds, found.memory)


def _word_maps(maps: AttentionMaps) -> list[dict[str, Tensor]]:
    """Of every picture by word, mean over all that was recorded."""
    means = maps.mean()
    return [
        {word: means[i, ..., k] for k, word in enumerate(words)}
        for i, words in enumerate(maps.labels)
    ]


def _repeated(pipe: Any, call: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The arguments for several prompts. Stable Diffusion refuses one negative prompt for them. An
    empty one stays: FLUX is called with it, and encodes it once."""
    negative = call.get("negative_prompt")
    more = {"negative_prompt": as_called(pipe, [negative] * count)} if negative else {}
    return dict(call) | more
