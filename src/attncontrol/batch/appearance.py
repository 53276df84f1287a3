"""What a picture looks like where no judge knows it: numbers that a destroyed one changes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Appearance:
    """Of one picture with values in 0 .. 1, Y its luma:

    variation   mean of |difference| of Y between neighbouring pixels, over both axes
    high        share of the power of the spectrum of Y without its mean above half of Nyquist's
                frequency, 1/4 cycle per pixel
    contrast    standard deviation of Y
    saturation  mean of max - min over red, green and blue
    """

    variation: float
    high: float
    contrast: float
    saturation: float


def appearance(picture: Image.Image) -> Appearance:
    """0 everywhere for a picture of one grey."""
    colors = np.asarray(picture.convert("RGB"), np.float64) / 255
    luma = colors @ _LUMA
    power = np.abs(np.fft.fft2(luma - luma.mean())) ** 2
    rows, columns = (np.fft.fftfreq(length) for length in luma.shape)
    fine = np.hypot(rows[:, None], columns[None]) > 0.25
    steps = [np.abs(np.diff(luma, axis=axis)) for axis in (0, 1)]
    return Appearance(
        variation=float(np.mean([step.mean() if step.size else 0.0 for step in steps])),
        high=float(power[fine].sum() / power.sum()) if luma.std() > 1e-9 else 0.0,
        contrast=float(luma.std()),
        saturation=float((colors.max(-1) - colors.min(-1)).mean()),
    )


def outside(one: Appearance, plain: Sequence[Appearance], factor: float) -> tuple[str, ...]:
    """The numbers of a picture that lie outside of those of plain pictures by more than a factor:
    below the least / factor, or above the largest * factor."""
    found = []
    for name, value in asdict(one).items():
        known = [getattr(each, name) for each in plain]
        if not min(known) / factor <= value <= max(known) * factor:
            found.append(name)
    return tuple(found)
