"""Commands that are killed at any moment, or whose disk is full: nothing half, and the same command
ends with the result of an undisturbed run.

The suite disturbs two cheap commands; ``FUZZ=100 python -m pytest -n 0 tests/fuzz/test_kills.py``
kills all of them together 100 times and fills the disk 100 times, half of them by a limit on files
and, if FUZZ_DISK names the root of a small file system, half of them there.
"""

import json
import os
import random
from math import ceil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from attncontrol import record, save
from attncontrol.sprites import models
from tests.fuzz.kills import Attack, Command, bytes_of, table
from tests.kit.tiny import tiny_sd

LARGE = int(os.environ.get("FUZZ", "0"))
TIMES = ("seconds", "memory", "time_ratio", "memory_ratio")
PROMPTS = "a red cat\na frog\n"
SMALL = ["--height", "64", "--width", "64", "--steps", "2"]


def report(folder):
    """Pictures, and run.json without what no two runs share."""
    found = json.loads((folder / "out" / "run.json").read_text())
    found.pop("command")
    for row in found["pictures"]:
        [row.pop(name, None) for name in TIMES]
    return bytes_of(folder / "out", "*.png") | {"run": found}


def benched(folder):
    out = folder / "out"
    lines = json.loads((out / "pairs.json").read_text())
    return bytes_of(out, "*.png", "settings/*") | {
        "rows": table(out / "pictures.csv", without=TIMES),
        "lines": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
    }


def searched(folder):
    lines = (folder / "out" / "scores.jsonl").read_text().splitlines()
    whole = sorted(line for line in lines if line.endswith("]") and line.startswith("["))
    return bytes_of(folder / "out", "*.png", "*.json") | {"lines": whole}


def content(folder):
    """Of records what they hold, but for the name of their run."""
    found = bytes_of(folder)
    for name in found:
        if name.endswith(".safetensors"):
            with safe_open(folder / name, "np") as record:
                about = json.loads(record.metadata()["attncontrol"])
                tensors = {name: record.get_tensor(name).tobytes() for name in record.offset_keys()}
            about.pop("run", None)
            found[name] = about, tensors
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """With a model, a record, prompts and photos."""
    folder = tmp_path_factory.mktemp("given")
    pipe = tiny_sd(dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder / "model")
    with record(pipe, ["red", "cat"], keep=("step", "head")) as maps:
        maps.pictures = pipe(
            "a red cat", num_inference_steps=3, height=64, width=64,
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip
    save(maps, folder / "a.safetensors")
    (folder / "prompts.txt").write_text(PROMPTS)
    for number in range(3):
        maps.pictures[0].rotate(90 * number).save(folder / f"{number}.png")
    return folder


def commands(place):
    model, prompts = ["--model", str(place / "model")], ["--prompts", str(place / "prompts.txt")]
    one, several = str(place / "a.safetensors"), [str(place / f"{n}.png") for n in range(2)]
    some = ["--seeds", "0-2", *model, *SMALL]
    recorded = [
        "record",
        "a red cat",
        *model,
        "--height",
        "64",
        "--width",
        "64",
        "--steps",
        "3",
        "--words",
        "cat",
    ]
    seen = ["--prompt", "a cat", "--words", "cat", *model, "--csv", "--reading", "mean"]
    search = ["heads", "search", "a cat", "--seeds", "0,1", "--batch", "2", "--layers", "mid_block"]
    found = {
        "generate": (["generate", *prompts, *some, "--batch", "2", "--method", "syngen",
                      "--compare"], "out", report),
        "edit": (["edit", "a cat", "--to", "a dog", "--compare", *some], "out", report),
        "heads": ([*search, "--top-k", "1"], "out", searched),
        "bench": (["bench", "--every", "138", "--seeds", "0,1", "--methods", "ebama", "--batch",
                   "1"], "out", benched),
        "record": (recorded, "out.safetensors", content),
        "steps": (recorded, "out", content),
        "inspect": (["inspect", one], "out.html", content),
        "one photo": (["maps", several[0], *seen], "out.safetensors", content),
        "photos": (["maps", *several, *seen], "out", content),
    }  # fmt: skip
    for kind, name in {"npz": "out.npz", "zarr": "out", "csv": "out.csv", "png": "out"}.items():
        found[kind] = (["export", one, "--format", kind], name, content)
    return {key: Command(line, "--out", name, of) for key, (line, name, of) in found.items()}


NAMES = [*commands(Path())]


@pytest.mark.parametrize("name", NAMES if LARGE else ["steps", "csv"])
@pytest.mark.filterwarnings("default")
def test_disturbed_commands_end_as_undisturbed_ones(place, tmp_path, monkeypatch, name):
    for call in models._CALLS.values():
        monkeypatch.setitem(call, "num_inference_steps", 2)
    attack, rng = Attack(commands(place)[name], tmp_path), random.Random(name)
    times = ceil(LARGE / len(NAMES)) or 1
    largest = max(file.stat().st_size for file in (tmp_path / "warm").rglob("*") if file.is_file())
    wrong = [attack.kill(rng.uniform(0.02, 0.98)) for _ in range(times)]
    disk = Path(os.environ.get("FUZZ_DISK", ""))
    for number in range(times):
        size = round(largest ** rng.uniform(0.3, 1))
        if disk.name and number % 2:
            size = round(rng.uniform(0.05, 1) * size_of(tmp_path / "warm"))
            wrong.append(attack.squeeze(disk, size))
        else:
            wrong.append(attack.fill(size))
    bad = [each for each in wrong if each]
    print(f"{name}: {len(bad)} of {len(wrong)} disturbed runs went wrong; {attack.seconds:.1f} s")
    assert not bad, "\n".join(bad)


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
