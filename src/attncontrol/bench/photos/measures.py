"""How far two pictures are apart, in all and inside and outside of a mask; see ``bench.photos``."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from attncontrol.errors import PackageError

_NAN = float("nan")
_ROUNDING = 1 / 12 / 255**2  # mean square of the error of 8 bits, of colours in 0 .. 1


@dataclass(frozen=True)
class Compared:
    """An edited picture with its reference."""

    psnr: float
    ssim: float
    mse: float
    psnr_inside: float
    ssim_inside: float
    mse_inside: float
    psnr_outside: float
    ssim_outside: float
    mse_outside: float


@dataclass(frozen=True)
class Unedited:
    """The same outside of the mask, by the convention of PIE-Bench's evaluator."""

    psnr_unedited: float
    ssim_unedited: float
    mse_unedited: float


def compared(picture: Any, reference: Any, changed: np.ndarray) -> Compared:
    """Pictures [height width 3] of 8 bits; ``changed`` [height width] bool. NaN of no pixels."""
    one, other = _colors(picture), _colors(reference)
    square = np.square(one - other).mean(-1)
    whole, similar = _ssim(one, other)
    inside, outside = (float(square[m].mean()) if m.any() else _NAN for m in (changed, ~changed))
    alike = [float(similar[m].mean()) if m.any() else _NAN for m in (changed, ~changed)]
    mse = float(square.mean())
    return Compared(
        _psnr(mse), whole, mse, _psnr(inside), alike[0], inside, _psnr(outside), alike[1], outside
    )


def unedited(picture: Any, source: Any, changed: np.ndarray) -> Unedited:
    """As ``compared``; NaN where the mask is the whole picture."""
    if changed.all():
        return Unedited(_NAN, _NAN, _NAN)
    one, other = (_colors(each) * ~changed[..., None] for each in (picture, source))
    mse = float(np.square(one - other).mean())
    return Unedited(_psnr(mse), _ssim(one, other)[0], mse)


def decibels(picture: Any, other: Any) -> float:
    """PSNR of two pictures."""
    return _psnr(float(np.square(_colors(picture) - _colors(other)).mean()))


def require_similarity() -> None:
    """Raises PackageError without scikit-image."""
    try:
        import skimage.metrics  # noqa: F401
    except ImportError as error:
        raise PackageError(
            "structural similarity is that of scikit-image: pip install attncontrol[bench]"
        ) from error


def _colors(picture: Any) -> np.ndarray:
    return np.asarray(picture, np.float64) / 255


def _psnr(mse: float) -> float:
    return float(-10 * np.log10(max(mse, _ROUNDING)))


def _ssim(one: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray]:
    """Of the picture without a margin of half a window, and of every pixel [height width]."""
    from skimage.metrics import structural_similarity

    mean, every = structural_similarity(
        one, other, data_range=1.0, channel_axis=-1, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    return float(mean), every.mean(-1)
