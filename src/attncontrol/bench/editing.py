"""Editing methods side by side on a bundled model, judged exactly: ``attncontrol bench --suite
edits``.

The source of a task shows what its prompt says; which do is found first, for all methods alike. Of
every method the source and the edited picture are made in one call, from the same noise:

same-seed         the new prompt alone
sdedit@0.5        diffusers' image-to-image on the source's picture, at this strength
p2p, masactrl@0   edits, see ``batch.edit_methods``, with a strength of their own or their usual one
auto+p2p          with ``steer(auto)`` on both pictures
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from attncontrol import losses
from attncontrol.batch.edit_methods import edits_of
from attncontrol.batch.options import image_to_image
from attncontrol.batch.results import append_lines, read_lines, same_settings
from attncontrol.bench.edit_rows import Row, judged, read
from attncontrol.bench.edit_tasks import Task, tasks
from attncontrol.errors import SettingError
from attncontrol.sprites.scorer import detect, shows
from attncontrol.verbs.edit import edit
from attncontrol.verbs.steer import steer

PLAIN = "same-seed"
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


def run(
    pipe: Any,
    kind: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    file: Path,
    *,
    pairs: int = 276,
    batch: int = 8,
    progress: Progress,
    **call: Any,
) -> list[Row]:
    """Rows of all methods, the plain one first, of the first ``pairs`` tasks whose source is right;
    those that ``file`` holds are not made again, new ones are appended batch by batch.

    Raises SettingError for an unknown method, ResultsError if ``file`` has pictures of other
    settings.
    """
    every = dict.fromkeys((PLAIN, *methods))
    for method in every:
        require_method(method)
    settings: dict[str, Any] = {"model": type(pipe).__name__, "device": str(pipe.device)}
    settings |= {"dtype": str(pipe.dtype), "seeds": list(seeds), "call": call}
    same_settings(file.with_name("settings") / f"{kind}.json", settings, of=file)
    rows = [row for row in read(file) if row.kind == kind]
    chosen = _right(pipe, kind, seeds, file, pairs, batch, progress, call)
    for method in every:
        made = {(row.prompt, row.to, row.seed) for row in rows if row.method == method}
        todo = [task for task in chosen if (task.prompt, task.to, task.seed) not in made]
        half = max(batch // 2, 1)
        chunks = [todo[start : start + half] for start in range(0, len(todo), half)]
        for chunk in progress(chunks, f"{kind}: {method}"):
            new = _rows(pipe, method, chunk, call)
            append_lines(file, map(asdict, new))
            rows += new
    wanted = {(task.prompt, task.to, task.seed) for task in chosen}
    return [r for r in rows if r.method in every and (r.prompt, r.to, r.seed) in wanted]


def require_method(name: str) -> None:
    """Raises SettingError."""
    method, _, strength = name.partition("@")
    if method == "sdedit":
        if not _is_share(strength):
            raise SettingError(f"{name!r}: write sdedit@0.5, with a strength between 0 and 1")
    elif name != PLAIN and (rest := _edits(name)):
        edits_of(rest, (0,))


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


def _edits(name: str) -> str:
    """What is left of a method without ``auto``, the objective."""
    return "+".join(part for part in name.split("+") if part != "auto")


def _right(
    pipe: Any,
    kind: str,
    seeds: Sequence[int],
    file: Path,
    pairs: int,
    batch: int,
    progress: Progress,
    call: Any,
) -> list[Task]:
    """The first tasks whose source shows its things; which do is kept beside ``file``."""
    known_file = file.with_name(f"{kind}-sources.jsonl")
    known: list[bool] = [bool(value) for value in read_lines(known_file)]
    every = tasks(kind, seeds)
    candidates = list(islice(every, len(known)))
    while sum(known) < pairs:
        some = list(islice(every, batch))
        for chunk in progress([some], f"{kind}: sources, {sum(known)} of {pairs}"):
            detected = detect(_pictures(pipe, [(t.prompt, t.seed) for t in chunk], call))
        right = [
            all(shows(found, thing) for thing in task.source)
            for task, found in zip(some, detected, strict=True)
        ]
        append_lines(known_file, right)
        known, candidates = known + right, candidates + some
    return [task for task, right in zip(candidates, known, strict=True) if right][:pairs]


def _rows(pipe: Any, method: str, of: Sequence[Task], call: Any) -> list[Row]:
    began = time.process_time()
    pictures = _made(pipe, method, of, call)
    seconds = round((time.process_time() - began) / len(of), 4)
    detected = detect([picture for pair in pictures for picture in pair])
    found = list(zip(detected[::2], detected[1::2], strict=True))
    return [
        judged(*each, method=method, seconds=seconds)
        for each in zip(of, pictures, found, strict=True)
    ]


def _made(
    pipe: Any, method: str, of: Sequence[Task], call: Any
) -> list[tuple[Image.Image, Image.Image]]:
    """The source and the edited picture of every task."""
    jobs = [(prompt, task.seed) for task in of for prompt in (task.prompt, task.to)]
    if method.startswith("sdedit@"):
        sources = _pictures(pipe, jobs[::2], call)
        again = image_to_image(pipe)
        strength = float(method.partition("@")[2])
        edited = _pictures(again, jobs[1::2], {**call, "image": sources, "strength": strength})
        return list(zip(sources, edited, strict=True))
    numbers = tuple(n - n % 2 for n in range(len(jobs)))
    with ExitStack() as stack:
        if "auto" in method.split("+"):
            stack.enter_context(steer(pipe, losses.method("auto")))
        if method != PLAIN and (rest := _edits(method)):
            stack.enter_context(edit(pipe, edits_of(rest, numbers)))
        pictures = _pictures(pipe, jobs, call)
    return list(zip(pictures[::2], pictures[1::2], strict=True))


def _pictures(pipe: Any, jobs: Sequence[tuple[str, int]], call: Any) -> list[Image.Image]:
    generators = [torch.Generator().manual_seed(seed) for _, seed in jobs]
    prompts = [prompt for prompt, _ in jobs]
    made: list[Image.Image] = pipe(prompt=prompts, generator=generators, **call).images
    return made
