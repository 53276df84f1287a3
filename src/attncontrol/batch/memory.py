"""How much memory a piece of work holds at most."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Appends the MiB that the block held at most above what was held before it: of the GPU, else
    of the process as Linux counts it; NaN elsewhere. Memory that the process has kept from earlier
    work is not seen a second time.
    """
    peaks: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) / 2**20
        yield peaks
        peaks.append(torch.cuda.max_memory_allocated(device) / 2**20 - before)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # resets the high-water mark
        before = _high_water()
        yield peaks
        peaks.append(_high_water() - before)
    else:
        yield peaks
        peaks.append(float("nan"))


def _high_water() -> float:
    match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    return int(match[1]) / 1024 if match else float("nan")
