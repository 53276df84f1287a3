"""Pictures of a suite by a pipeline that is there. ``compare`` makes its pictures as a job, which
loads a model by its name with the scheduler that it has; here the scheduler is another one."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attncontrol import losses
from attncontrol.batch.generate import generate
from attncontrol.batch.results import same_settings
from attncontrol.bench.compare import row_of
from attncontrol.bench.prompts import groups_of
from attncontrol.bench.rows import Row, append, read
from attncontrol.bench.tasks import tasks


def make(
    pipe: Any,
    suite: str,
    method: str,
    seeds: Sequence[int],
    file: Path,
    *,
    every: int = 1,
    batch: int = 8,
    progress: Callable[[Iterable[Any], str], Iterable[Any]],
    **call: Any,
) -> None:
    """Appends the rows of a method, made of words or "plain", that a file lacks. Raises
    ResultsError if it has some that were made with other settings."""
    about = {"model": type(pipe).__name__, "scheduler": pipe.scheduler.to_json_string()}
    about |= {"device": str(pipe.device), "dtype": str(pipe.dtype), "call": call}
    same_settings(file.with_name("settings") / f"{suite}-{method}.json", about, of=file)
    rows: list[Row] = read(file)
    done = {(row.suite, row.method, row.prompt, row.seed) for row in rows}
    of_prompt = {task.prompt: task for task in tasks(suite, every)}
    jobs = [(p, s) for p in of_prompt for s in seeds if (suite, method, p, s) not in done]
    chunks = [jobs[start : start + batch] for start in range(0, len(jobs), batch)]
    for chunk in progress(chunks, f"{suite}: {method}"):
        objective = None
        if method != "plain":
            objective = losses.method(method, groups_of([prompt for prompt, _ in chunk]))
        how = {"objective": objective, "batch": batch, **call}
        pictures = generate(pipe, chunk, None, method=method, **how)
        append(file, [row_of(suite, of_prompt[each.prompt], each) for each in pictures])
