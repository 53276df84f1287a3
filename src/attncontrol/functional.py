"""Small functions on attention maps that losses and recorders share."""

import torch
import torch.nn.functional as F

from attncontrol.axes import Contrast, Resized, TokenMaps, WordMap


def resize(maps: TokenMaps, height: int, width: int) -> Resized:
    """Bilinear resize of the spatial axes (pixel centres aligned, no antialiasing)."""
    if maps.shape[1:3] == (height, width):
        return maps
    resized = F.interpolate(maps.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def smooth(maps: WordMap, sigma: float = 0.5) -> WordMap:
    """3 x 3 Gaussian with reflected borders, taps proportional to exp(-(d / (2 sigma))^2).

    This is the kernel of the official Attend-and-Excite code and its descendants; a Gaussian of standard deviation s has
    exp(-d^2 / (2 s^2)), so the effective deviation is sqrt(2) sigma: 0.707 for 0.5, taps (0.2119, 0.5761, 0.2119).
    """
    distance = torch.arange(-1, 2, device=maps.device, dtype=maps.dtype)
    taps = torch.exp(-((distance / (2 * sigma)) ** 2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel[None, None])[:, 0]


def sharpen(maps: TokenMaps, temperature: float = 100.0) -> Contrast:
    """softmax over tokens of temperature * maps, without the first and the last position of the text sequence.

    ``result[..., k]`` belongs to token k + 1. Attend-and-Excite's contrast between tokens; it saturates: probabilities of
    0.08 and 0.02 already become 0.998 and 0.002.
    """
    return (temperature * maps[..., 1:-1]).softmax(-1)
