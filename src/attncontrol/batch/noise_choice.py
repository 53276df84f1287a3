"""The noise of a picture, chosen among several by the maps of its first steps.

    d = min over pairs of words of   |c_i - c_j|        c: centroid of the squared map of a word

Of every candidate the first ``share`` of the steps are made; the one with the largest d in the last
of these is taken. Where two subjects begin in one place one of them is lost: of eleven losses and
measures of early maps this told best which of four noises shows both, on all bundled models
(bench/README.md). A prompt of a single word keeps its first noise.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import combinations
from typing import Any

import torch

from attncontrol.attention.moment import steps_in
from attncontrol.attention.sites import TEXT
from attncontrol.axes import Means, SpatialMaps
from attncontrol.errors import SettingError
from attncontrol.maps.functional import centroid, mean_where_known
from attncontrol.prompts.words import Words
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.record import record


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Ends a run of the pipeline."""


def candidates(seed: int, count: int) -> list[int]:
    """Seeds of the noises that are tried for a picture, its own first; the same everywhere."""
    words = [hashlib.sha256(f"{seed}#{k}".encode()).digest() for k in range(1, count)]
    return [seed, *(int.from_bytes(word[:4], "big") for word in words)]


def choose_seeds(
    pipe: Any,
    prompts: Sequence[str],
    noises: Sequence[Sequence[int]],
    words: Words,
    *,
    share: float = 0.16,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    **call: Any,
) -> list[int]:
    """For every prompt the best of its seeds; ``noises`` has as many for each. ``around`` makes the
    context of a run, such as that of ``steer``. Raises SettingError.

        seed, = choose_seeds(pipe, ["a cat and a frog"], [[7, 8, 9, 10]], ["cat", "frog"],
                             around=lambda: steer(pipe, Auto()))
    """
    if not 0 < share <= 1:
        raise SettingError(f"share={share}: noises are compared after a share of the run, 0 to 1")
    rows = []
    for seeds in zip(*noises, strict=True):
        maps = _early_maps(pipe, prompts, seeds, words, share, around, call)
        rows.append([apartness(of_image) for of_image in maps])
    best = [max(range(len(rows)), key=lambda k: rows[k][i]) for i in range(len(prompts))]
    return [seeds[k] for seeds, k in zip(noises, best, strict=True)]


def apartness(maps: SpatialMaps) -> float:
    """d of the words of an image, in fractions of the picture; 0 of a single one."""
    centres = [centroid(word.square()) for word in maps.unbind(-1) if word.isfinite().all()]
    pairs = combinations(centres, 2)
    return min((float((one - other).norm()) for one, other in pairs), default=0.0)


def _early_maps(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    words: Words,
    share: float,
    around: Callable[[], AbstractContextManager[Any]],
    call: dict[str, Any],
) -> Means:
    """Of the step that ends a share of the run, in the layers that ``steer`` looks at."""

    def stop(now: DenoiserCall) -> None:
        if now.step.index >= max(1, steps_in(share, now.step.total)):
            raise _Enough

    run = attach(pipe)
    steering = run.family.steering
    where = TEXT if isinstance(steering, str) else steering(tuple(run.sites.values()))[0]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    with (
        run.hooked(Hooks(before=stop)),  # first, before others have begun the step
        around(),
        record(pipe, words, where=where, keep=("step",)) as maps,
        suppress(_Enough),
    ):
        pipe(list(prompts), generator=generators, **call)
    return mean_where_known([of[:, 0, -1].nanmean(1) for of in maps.layers.values()])
