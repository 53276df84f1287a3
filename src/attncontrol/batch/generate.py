"""Generation for scripts: a prompt and seeds in, pictures with word maps and losses out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attncontrol.batch.memory import peak_memory
from attncontrol.batch.noise_choice import candidates, choose_seeds
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import ObjectiveLike
from attncontrol.prompts.syntax import nouns
from attncontrol.prompts.words import Words
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import Trace, steer


@dataclass(frozen=True)
class Picture:
    """One generated picture. ``maps`` are word maps [height width]; ``losses`` and ``refinements``
    are per guided step; ``noise`` is the seed of the noise it began with, ``seed`` unless another
    one was chosen; ``memory`` is what its pipeline call held at most above what was held before,
    MiB.
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
    noise: int


def generate(
    pipe: Any,
    jobs: Sequence[tuple[str, int]],
    words: Words | None,
    *,
    method: str = "plain",
    objective: ObjectiveLike | None = None,
    descent: Descent | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    batch: int = 4,
    noises: int = 1,
    **call: Any,
) -> Iterator[Picture]:
    """Pictures of ``jobs``, (prompt, seed) each, with maps of ``words``; steered by an objective,
    if given, called ``method``.

    A picture does not depend on its batch. ``around`` makes another context for every call of the
    pipeline; of several ``noises`` the one is taken that ``noise_choice`` finds; ``call`` goes to
    the pipeline, a negative prompt once for every prompt.
    """
    guided = partial(_guided, pipe, objective, descent, around)
    for start in range(0, len(jobs), batch):
        prompts, seeds = zip(*jobs[start : start + batch], strict=True)
        began = time.perf_counter()
        arguments = _repeated(call, len(prompts))
        taken: Sequence[int] = seeds
        if noises > 1:
            tried = [candidates(seed, noises) for seed in seeds]
            named = words or {prompt: nouns(prompt) for prompt in prompts}
            taken = choose_seeds(pipe, prompts, tried, named, around=guided, **arguments)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in taken]
        with ExitStack() as stack:
            trace = stack.enter_context(guided())
            held = stack.enter_context(peak_memory(pipe.device))
            maps = stack.enter_context(record(pipe, words)) if words else None
            images = pipe(list(prompts), generator=generators, **arguments).images
        seconds = (time.perf_counter() - began) / len(seeds)
        steps = trace.steps if trace else []
        of_words = _word_maps(maps) if maps else [{}] * len(seeds)
        for i, image in enumerate(images):
            losses = tuple(step.losses[i] for step in steps)
            refinements = tuple(step.refinements[i] for step in steps)
            made = (image, of_words[i], losses, refinements, seconds, held[0], taken[i])
            yield Picture(prompts[i], seeds[i], method, *made)


@contextmanager
def _guided(
    pipe: Any,
    objective: ObjectiveLike | None,
    descent: Descent | None,
    around: Callable[[], AbstractContextManager[Any]],
) -> Iterator[Trace | None]:
    guidance = nullcontext() if objective is None else steer(pipe, objective, descent=descent)
    with around(), guidance as trace:
        yield trace


def _word_maps(maps: AttentionMaps) -> list[dict[str, Tensor]]:
    """Of every picture by word, mean over all that was recorded."""
    means = maps.mean()
    return [
        {word: means[i, ..., k] for k, word in enumerate(words)}
        for i, words in enumerate(maps.labels)
    ]


def _repeated(call: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Stable Diffusion refuses one negative prompt for a list of prompts. An empty one stays: FLUX
    is called with it, and encodes it once."""
    negative = call.get("negative_prompt")
    return dict(call) | ({"negative_prompt": [negative] * count} if negative else {})
