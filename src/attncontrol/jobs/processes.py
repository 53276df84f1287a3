"""Several processes of this machine, each with a pipeline. One that is killed costs what it was
making, and is begun anew: a batch of which a second one dies is halved."""

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as until
from typing import Any

import torch

from attncontrol.jobs.making import told
from attncontrol.jobs.work import (
    Add,
    Done,
    Engine,
    Setup,
    Stopped,
    Task,
    Worker,
    halves,
    lost,
    overlapped,
)

_AHEAD = 2  # tasks of a process: while one is kept, the next one is made
_CONTEXT = multiprocessing.get_context("spawn")  # threads and GPUs do not survive a fork


@dataclass
class _Process:
    """``given``: tasks that it has not done, of which the first ``begun`` are made or kept."""

    process: Any
    pipe: Connection
    given: deque[Task] = field(default_factory=deque)
    begun: int = 0

    def give(self, task: Task) -> None:
        self.given.append(task)
        with suppress(OSError):  # it died, which is heard
            self.pipe.send(task)

    def heard(self, add: Add) -> bool:
        """Takes what it says; false if it has died. Raises what it raised."""
        try:
            said = self.pipe.recv()
        except (EOFError, OSError):
            return False
        if isinstance(said, BaseException):
            failed = Future[None]()
            failed.set_exception(said)
            failed.result()
        if isinstance(said, Done):
            self.given.popleft()
            self.begun -= 1
            add(said)
        else:
            self.begun += 1
        return True


def processes(workers: int) -> Engine:
    """An engine of so many; on GPUs each has the next one."""

    def engine(setup: Setup, tasks: Iterable[Task], add: Add, stopped: Stopped) -> None:
        waiting, suspects = deque(tasks), set[tuple[str, ...]]()
        count, stop = min(workers, len(waiting)), _CONTEXT.Event()
        with _running() as running:
            while True:
                if stopped():
                    stop.set()
                    waiting.clear()
                for number in range(count):
                    if waiting and number not in running:
                        running[number] = _begin(setup, number, count, stop)
                _hand_out(waiting, list(running.values()))
                busy = {each.pipe: number for number, each in running.items() if each.given}
                if not busy:
                    return
                for pipe in until(list(busy)):
                    number = busy[pipe]  # type: ignore[index]  # only these were waited for
                    if not running[number].heard(add):
                        died = running.pop(number)
                        if not stop.is_set():
                            _try_again(died, waiting, suspects, add)

    return engine


def _hand_out(waiting: deque[Task], running: list[_Process]) -> None:
    """In turns; ahead only while there is enough for all."""
    for depth in range(_AHEAD):
        for each in running:
            if len(each.given) <= depth and len(waiting) > depth * len(running):
                each.give(waiting.popleft())


def _try_again(
    died: _Process, waiting: deque[Task], suspects: set[tuple[str, ...]], add: Add
) -> None:
    """What a process had that died. The last that it began is to blame: it is made again, the
    second time in halves, and a single item is given up."""
    tasks, last = [*died.given], max(died.begun - 1, 0)
    blamed = tasks[last]
    again = halves(blamed) if blamed.names in suspects else (blamed,)
    suspects.update(task.names for task in again)
    waiting.extendleft(reversed([*tasks[:last], *again, *tasks[last + 1 :]]))
    if not again:
        add(lost(blamed))
    warnings.warn(
        f"a worker died; {max(died.begun, 1)} batches that were being made are made again",
        stacklevel=2,
    )


@contextmanager
def _running() -> Iterator[dict[int, _Process]]:
    """Processes by their numbers. Whatever ends the block ends them."""
    running: dict[int, _Process] = {}
    try:
        yield running
        for each in running.values():
            with suppress(OSError):
                each.pipe.send(None)
    except BaseException:
        for each in running.values():
            each.process.kill()
        raise
    finally:
        for each in running.values():
            each.process.join()


def _begin(setup: Setup, number: int, count: int, stop: Any) -> _Process:
    here, there = _CONTEXT.Pipe()
    threads = max(1, (os.cpu_count() or 1) // count)
    process = _CONTEXT.Process(
        target=_work, args=(setup, number, threads, there, stop), daemon=True
    )
    process.start()
    there.close()  # so that the end of the process ends the pipe
    return _Process(process, here)


def _work(setup: Setup, number: int, threads: int, pipe: Connection, stop: Any) -> None:
    """In a new process: does what the pipe brings, and sends what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    one_at_a_time = threading.Lock()

    def send(what: Done | BaseException | None) -> None:
        with one_at_a_time:
            pipe.send(what)

    def received() -> Iterator[Task]:
        while (task := pipe.recv()) is not None:
            send(None)  # it is begun
            yield task

    try:
        overlapped(Worker(setup, _own(setup.device, number)), received(), send, stop.is_set)
    except Exception as error:
        send(_sent(error))


def _own(device: str, number: int) -> str:
    return f"cuda:{number % torch.cuda.device_count()}" if device == "cuda" else device


def _sent(error: Exception) -> Exception:
    """As it is, if it can be."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever is in it
        return RuntimeError(told(error))
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        until([parent.sentinel])
        os._exit(1)
