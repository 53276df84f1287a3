"""Generation for scripts: a prompt and seeds in, pictures with word maps and losses out."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as of_diffusers
from PIL import Image
from torch import Tensor
from transformers.utils import logging as of_transformers

from attncontrol import testbed
from attncontrol.auto import Auto
from attncontrol.boxes import Layouts
from attncontrol.compose import Objective, Sum
from attncontrol.descent import Descent
from attncontrol.errors import UnsupportedError
from attncontrol.losses.a_star import a_star
from attncontrol.losses.apart import Apart
from attncontrol.losses.attend_and_excite import AttendAndExcite
from attncontrol.losses.attention_refocusing import AttentionRefocusing
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
from attncontrol.record import record
from attncontrol.steer import Trace, TraceStep, steer
from attncontrol.testbed.memory import peak_memory
from attncontrol.tokens import Groups, Words

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

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Precisions of a pipeline."""


@dataclass(frozen=True)
class Picture:
    """One generated picture. ``maps`` are word maps [height width]; ``losses`` and ``refinements`` are per guided step;
    ``memory`` is what its pipeline call held at most above what was held before, MiB.
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


def load(model: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """A bundled model by its name, a local folder or a hub id. Raises UnsupportedError if there is no such model."""
    if model in testbed.MODELS:
        pipe = DiffusionPipeline.from_pretrained(testbed.path(testbed.MODELS[model]), dtype=dtype)
    else:
        try:
            pipe = DiffusionPipeline.from_pretrained(model, dtype=dtype)
        except (OSError, ValueError) as error:
            kind = "folder is not a diffusers pipeline" if Path(model).is_dir() else "model could be neither found nor downloaded"
            raise UnsupportedError(
                f"{model!r}: this {kind} ({error}). Use one of {', '.join(testbed.MODELS)}, a local pipeline folder or a hub id"
            ) from error
    return pipe.to(device)


def quiet() -> None:
    """No notes below errors and no loading bars from diffusers and transformers."""
    for library in (of_diffusers, of_transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()


def guided(call: Mapping[str, Any], scale: float | None) -> dict[str, Any]:
    """The arguments of a pipeline's call with this scale of classifier-free guidance; None leaves it as it is."""
    key = "true_cfg_scale" if "true_cfg_scale" in call else "guidance_scale"
    return dict(call) if scale is None else {**call, key: scale}


def parse_seeds(text: str) -> list[int]:
    """``"0-3,8"`` -> [0, 1, 2, 3, 8]. Raises ValueError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"{text!r}: write seeds as 0-3,8")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return seeds


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
    """Pictures of ``jobs``, (prompt, seed) each, with maps of ``words``; steered by an objective, if given, called ``method``.

    A picture does not depend on its batch. ``around`` makes another context for every call of the pipeline; ``call`` goes to the
    pipeline.
    """
    for start in range(0, len(jobs), batch):
        prompts, seeds = zip(*jobs[start : start + batch], strict=True)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(around())
            held = stack.enter_context(peak_memory(pipe.device))
            maps = stack.enter_context(record(pipe, words)) if words else None
            trace = None if objective is None else stack.enter_context(steer(pipe, objective, descent=descent))
            images = pipe(list(prompts), generator=generators, **call).images
        seconds = (time.perf_counter() - began) / len(seeds)
        steps: list[TraceStep] = trace.steps if isinstance(trace, Trace) else []
        labels, means = (maps.labels, maps.mean()) if maps else (((),) * len(seeds), None)
        for i, image in enumerate(images):
            found = {} if means is None else {word: means[i, ..., k] for k, word in enumerate(labels[i])}
            losses, refinements = tuple(step.losses[i] for step in steps), tuple(step.refinements[i] for step in steps)
            yield Picture(prompts[i], seeds[i], method, image, found, losses, refinements, seconds, held[0])
