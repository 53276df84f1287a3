"""Checks on an accelerator, of which the tests have none: python -m tests.perf.device --out
FILE.json [--device cuda --seconds 240 --only NAME ...].

equal       tiny models of every family in float64: maps and latents of all verbs on the device and
            on the processor
precision   maps of the bundled models in float32, bfloat16 and float16, and that records leave
            pictures as they are
verdicts    what the bundled models draw, plain and steered by ``auto``, as the scorer sees it
backend     a FLUX of few blocks at full width, bfloat16, under every kernel of diffusers that is
            there: what runs in it, gradients, and times over those of the plain run, in turns
offload     offloaded tiny models against themselves on the device
memory      peaks and times of ``record`` and ``steer`` over the plain run, the same FLUX and an
            SD 1.5
compiled    the same FLUX, its blocks and as a whole: latents, graphs made afterwards, times
quantised   where torchao or bitsandbytes is there
further     as ``equal``, of more families

A check that fails is written with its text, and the next one runs; one that would begin after
``--seconds`` is left out. On a processor (``--device cpu``) sizes are tiny and what needs CUDA is
skipped.
"""

import argparse
import json
import signal
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import transformers.utils as transformers
from diffusers.utils import logging

from tests.perf import device_checks, device_costs
from tests.perf.device_kit import NothingHereError

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "triton", "sageattention")
MOST = 90  # seconds of a check


def checks(device: str):
    """By name, in the order of what they tell."""
    groups = (
        ("equal", device_checks.equal(device)),
        ("precision", device_checks.precision(device)),
        ("backend", device_costs.backends(device)),
        ("offload", device_checks.offloads(device)),
        ("memory", device_costs.memory(device)),
        ("verdicts", device_checks.verdicts(device)),
        ("compiled", device_costs.compiled(device)),
        ("quantised", device_costs.quantised(device)),
        ("further", device_checks.further(device)),
    )
    return {f"{group} {name}": check for group, of in groups for name, check in of}


def place(device: str) -> dict[str, str]:
    def of(package):
        try:
            return version(package)
        except PackageNotFoundError:
            return "none"

    name = torch.cuda.get_device_name() if device.startswith("cuda") else "processor"
    return {"device": name} | {package: of(package) for package in PACKAGES}


def late(*_):
    raise TimeoutError(f"a check has {MOST} seconds")


def outcome(check) -> dict:
    """``ok`` is of the values of a check that are true or false."""
    began = time.perf_counter()
    signal.signal(signal.SIGALRM, late)
    signal.alarm(MOST)
    try:
        values = check()
        found = {"ok": all(each for each in values.values() if isinstance(each, bool)), **values}
    except NothingHereError as reason:
        found = {"skipped": str(reason)}
    except Exception as error:
        frames = traceback.format_exc(limit=-3).splitlines()[1:-1]
        found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:600], "at": frames}
    finally:
        signal.alarm(0)
    return found | {"seconds": round(time.perf_counter() - began, 1)}


def line(name: str, found: dict) -> str:
    """What is told at once; the file has all."""
    state = "skipped" if "skipped" in found else "ok" if found["ok"] else "FAILED"
    short = {key: value for key, value in found.items() if key not in ("ok", "at", "told of")}
    if state == "ok":
        short = {key: value for key, value in short.items() if value is not True}
    return f"{state} {name}: {json.dumps(short)[:500]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--only", nargs="*", help="beginnings of names")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    for each in (logging, transformers.logging):
        each.set_verbosity_error()
        each.disable_progress_bar()
    torch.set_num_threads(1)  # tiny models are slower with more
    for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
        backend.allow_tf32 = False
    began, found = time.perf_counter(), {"place": place(given.device)}
    print(json.dumps(found["place"]), flush=True)
    for name, check in checks(given.device).items():
        if given.only and not name.startswith(tuple(given.only)):
            continue
        over = time.perf_counter() - began > given.seconds
        found[name] = {"skipped": "no time was left"} if over else outcome(check)
        print(line(name, found[name]), flush=True)
        if given.out:
            given.out.write_text(json.dumps(found, indent=1), "utf-8")
        if "CUDA error" in found[name].get("error", ""):
            print(f"after {name} nothing runs in this process: begin again with --only", flush=True)
            break


if __name__ == "__main__":
    main()
