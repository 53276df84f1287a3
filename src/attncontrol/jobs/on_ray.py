"""Actors of Ray, on one machine or a cluster: each writes its pictures, and what became of them
comes back to the one process that writes the index."""

import pickle
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from attncontrol.errors import PackageError
from attncontrol.jobs.work import Add, Done, Engine, Setup, Stopped, Task, Worker

_BLOCKS = 10_000  # what is more is not told apart by Ray


def on_ray(workers: int) -> Engine:
    """An engine of so many actors, on the cluster of RAY_ADDRESS or else of this machine alone. An
    actor that dies is made anew by Ray, and what it was making is made again. All nodes must see
    the same folder."""

    def engine(setup: Setup, given: Iterable[Task], add: Add, stopped: Stopped) -> None:
        if not (tasks := list(given)):
            return
        ray = _ray()
        own = not ray.is_initialized()
        if own:
            ray.init(log_to_driver=False, include_dashboard=False)
        try:
            for done in _rows(ray, setup, tasks, workers):
                add(done)
                if stopped():
                    break
        finally:
            if own:
                ray.shutdown()

    return engine


def _rows(ray: Any, setup: Setup, tasks: Sequence[Task], workers: int) -> Any:
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"task": pickle.dumps(task)} for task in tasks]
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), _BLOCKS))
    made = data.map_batches(
        Actor, fn_constructor_args=(setup,), batch_size=1, num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        max_concurrency=2,
        num_gpus=1 if setup.device.startswith("cuda") else 0,
    )  # fmt: skip
    for row in made.iter_rows():
        yield pickle.loads(row["done"])


class Actor:
    """A worker, as Ray Data wants it. Its second thread makes a batch while the first keeps one."""

    def __init__(self, setup: Setup):
        self.worker = Worker(setup)
        self.making, self.keeping = Lock(), Lock()

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        return {"done": [pickle.dumps(self.done(pickle.loads(task))) for task in rows["task"]]}

    def done(self, task: Task) -> Done:
        with self.making:
            result = self.worker.painted(task)
        with self.keeping:
            return self.worker.kept(result)


def _ray() -> Any:
    """Raises PackageError."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PackageError(
            f"engine ray needs Ray ({error}): pip install 'attncontrol[ray]'"
        ) from error
    return ray
