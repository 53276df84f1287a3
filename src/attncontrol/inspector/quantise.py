"""Maps in one byte per cell, compressed, as text for a page."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from attncontrol.errors import NonFiniteError


def quantise(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(q uint8 [... height width], m float32 [...]): value = m (q / 255)^2, m the maximum of each
    map.

    Off by less than 0.4 % of m. Raises NonFiniteError for NaN and infinity.
    """
    peaks = maps.max((-2, -1)).astype(np.float32)
    if not np.isfinite(maps).all():
        raise NonFiniteError(
            "the record holds NaN or infinite attention; it cannot be drawn. "
            "Look at the layers of the record"
        )
    scale = np.maximum(peaks, np.finfo(np.float32).tiny)[..., None, None]
    return np.rint(255 * np.sqrt(np.clip(maps / scale, 0, 1))).astype(np.uint8), peaks


def atlas(entries: Sequence[np.ndarray], *, run: int = 1) -> dict[str, Any]:
    """JSON of stacks of maps [... height width], each with a grid of its own.

    ``cells`` are the quantised cells of all entries in order, deflated; of ``run`` maps that follow
    each other (the steps) all but the first are differences to the one before, modulo 256.
    ``peaks`` are the maxima, ``counts`` the number of maps per entry.
    """
    cells, peaks, grids, counts = [], [], [], []
    for maps in entries:
        q, m = quantise(maps)
        height, width = q.shape[-2:]
        runs = q.reshape(-1, run, height * width)
        cells.append(np.concatenate([runs[:, :1], runs[:, 1:] - runs[:, :-1]], 1).tobytes())
        peaks.append(m.ravel())
        grids.append([height, width])
        counts.append(m.size)
    packed = zlib.compress(b"".join(cells), 9)
    return {
        "grids": grids,
        "counts": counts,
        "run": run,
        "cells": text(packed),
        "peaks": floats(np.concatenate(peaks)),
    }


def floats(values: np.ndarray) -> str:
    """Little-endian float32."""
    return text(values.astype("<f4").tobytes())


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
