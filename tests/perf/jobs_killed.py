"""A job whose process is killed again and again (SIGKILL) at random moments, against the same job
undisturbed: python -m tests.perf.jobs_killed [--kills 100] [--pictures 300].

Each attempt is a fork of a process that has loaded the model, so that the moments lie where batches
are made and written and not where libraries are imported; a fork needs OMP_NUM_THREADS=1. Where a
folder is complete before the kills are spent, another one is begun. Compared are the names and the
bytes of all pictures and their JSON, and the index but for its seconds.
"""

import argparse
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from attncontrol.batch.pipelines import opened
from attncontrol.jobs import making
from attncontrol.jobs.engine import run
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job

NOUNS = ("cat", "frog", "car", "tree", "dog")
COLOURS = ("red", "blue", "green", "yellow", "white")
BATCH = 2


def job(pictures: int) -> Job:
    """Plain and steered ones in turns."""
    prompts = [f"a {c} {a} and a {b}" for c in COLOURS for a in NOUNS for b in NOUNS if a != b]
    items = [
        Item(prompt=prompts[k // 4 % len(prompts)], seed=k // 400, method=method, steps=2)
        for k in range(0, pictures * 2, 2)
        for method in (("plain", "auto")[k // 2 % 2],)
    ]
    return Job.of(items)


def child(of: Job, out: Path) -> int:
    """The number of a process that makes the job."""
    number = os.fork()
    if number == 0:
        try:
            run(of, out, batch=BATCH)
        finally:
            os._exit(0)
    return number


def ended(number: int, seconds: float) -> bool:
    """Whether the process came to its end by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(number, os.WNOHANG)[0]:
            return True
        time.sleep(0.001)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return False


def contents(out: Path) -> tuple[dict[str, bytes], list[tuple[object, ...]]]:
    files = {file.name: file.read_bytes() for file in (out / "pictures").iterdir()}
    with sqlite3.connect(out / "index.sqlite") as index:
        columns = "number, name, item, file, pixels, record, losses, refinements, error"
        rows = index.execute(f"SELECT {columns} FROM pictures ORDER BY number").fetchall()
    return files, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    pipe, of, chance = opened("sprites", "cpu", "float32"), job(given.pictures), random.Random
    making.opened = lambda *_: pipe
    moments = chance(given.seed)
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        ended(child(of, Path(folder) / "whole"), 1e9)
        whole = time.perf_counter() - began
        wanted = contents(Path(folder) / "whole")
        print(f"{len(of)} pictures undisturbed in {whole:.0f} s, {len(wanted[1])} rows", flush=True)
        kills = folders = attempts = 0
        while kills < given.kills:
            out = Path(folder) / f"killed{folders}"
            folders += 1
            done = False
            while not done:
                attempts += 1
                left = moments.expovariate(70 / whole) if kills < given.kills else 1e9
                done = ended(child(of, out), left)
                kills += not done
                if kills % 10 == 0 and not done:
                    print(f"{kills} kills, {time.perf_counter() - began:.0f} s", flush=True)
            files, rows = contents(out)
            left = [file.name for file in (out / "pictures").iterdir() if file.name[0] == "."]
            assert rows == wanted[1], "the index differs"
            assert files.keys() - set(left) == wanted[0].keys(), "names differ"
            other = [name for name in wanted[0] if files[name] != wanted[0][name]]
            assert not other, f"{len(other)} files differ: {other[:3]}"
            print(f"folder {folders}: equal; {len(left)} leftovers", flush=True)
        print(f"{kills} kills in {attempts} attempts, {folders} folders: all equal")


if __name__ == "__main__":
    main()
