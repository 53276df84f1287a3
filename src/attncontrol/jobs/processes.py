"""Several processes of this machine, each with a pipeline. One that is killed costs what it was
making: the pool is made anew with what is missing."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as until
from typing import Any

import torch

from attncontrol.jobs.made import Made
from attncontrol.jobs.work import Add, Done, Engine, Setup, Stopped, Task, Worker

_DEATHS = 3  # of the processes that had a task, after which it is not tried again
_DIED = (
    "RuntimeError: the process that made it was killed, again and again; if it was for memory, a "
    "smaller batch may help"
)
_worker: Worker | None = None  # of this process


def processes(workers: int) -> Engine:
    """An engine of so many; on GPUs each has the next one."""

    def engine(setup: Setup, tasks: Sequence[Task], add: Add, stopped: Stopped) -> None:
        waiting, deaths = deque(tasks), Counter[int]()
        while waiting and not stopped():
            died = _until_broken(setup, waiting, add, stopped, workers)
            if not died:
                return
            warnings.warn(
                f"a worker died; {len(died)} batches that were being made are made again",
                stacklevel=2,
            )
            deaths.update(task.number for task in died)
            waiting.extendleft(reversed([task for task in died if deaths[task.number] < _DEATHS]))
            for task in (task for task in died if deaths[task.number] >= _DEATHS):
                if _until_broken(setup, deque([task]), add, stopped, 1):  # alone: it is to blame
                    add(_lost(task))

    return engine


def _until_broken(
    setup: Setup, waiting: deque[Task], add: Add, stopped: Stopped, workers: int
) -> list[Task]:
    """Does what waits; if a process dies, the tasks that were being done. Each process has one."""
    running: dict[Future[Done], Task] = {}
    with _pool(setup, min(workers, len(waiting))) as pool:
        try:
            while running or (waiting and not stopped()):
                while waiting and len(running) < workers and not stopped():
                    running[pool.submit(_do, waiting[0])] = waiting[0]
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done = future.result()
                    del running[future]
                    add(done)
        except BrokenProcessPool:
            return sorted(running.values(), key=lambda task: task.number)
    return []


@contextmanager
def _pool(setup: Setup, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned, since threads and GPUs do not survive a fork. Whatever ends the block ends them."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // workers)
    before = set(multiprocessing.active_children())
    arguments = (setup, threads, context.Value("i", 0))
    pool = ProcessPoolExecutor(workers, context, _begin, arguments)
    try:
        yield pool
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(setup: Setup, threads: int, count: Any) -> None:
    """In a new process."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with count.get_lock():
        number = count.value
        count.value += 1
    device = setup.device
    if device == "cuda":
        device = f"cuda:{number % torch.cuda.device_count()}"
    _worker = Worker(setup, device)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        until([parent.sentinel])
        os._exit(1)


def _do(task: Task) -> Done:
    assert _worker is not None
    return _worker(task)


def _lost(task: Task) -> Done:
    rows = [row for row in task.rows if row.name in task.wanted]
    return Done(tuple(Made(row, error=_DIED) for row in rows))
