"""How good pictures of the sprites world are: Frechet distance to true scenes, shape of what they
show, presence of what is named.

Everything is judged by the scorer, a network that has seen true scenes only, so a picture that
merely pleases it scores too well; shapes are compared with the sprites themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from attncontrol.errors import ResultsError
from attncontrol.sprites.scenes import Scene, Thing, render, sample, sprite
from attncontrol.sprites.scorer import Detection, detect, features, shows
from attncontrol.sprites.training.fit import to_tensor


@dataclass(frozen=True)
class Quality:
    """One picture. ``iou`` as ``sprite_iou``; ``confidence`` of the scorer, mean over detections, 0
    without any; ``present`` and ``bound``, whether all that is named is shown, and in the colours
    that are named, NaN where nothing is named; ``features`` of the scorer [96].
    """

    iou: float
    confidence: float
    present: float
    bound: float
    features: tuple[float, ...]


def measure(pictures: Sequence[Image.Image], named: Sequence[Sequence[Thing]]) -> list[Quality]:
    """The quality of pictures of which each is to show its ``named`` things."""
    return [
        Quality(
            iou=sprite_iou(detections),
            confidence=float(np.mean([f.confidence for f in detections])) if detections else 0.0,
            present=float(all(shows(detections, Thing(thing.noun)) for thing in things))
            if things
            else float("nan"),
            bound=float(all(shows(detections, thing) for thing in things))
            if things
            else float("nan"),
            features=tuple(round(float(v), 5) for v in of_picture),
        )
        for detections, things, of_picture in zip(
            detect(pictures), named, features(pictures), strict=True
        )
    ]


def sprite_iou(detections: Sequence[Detection]) -> float:
    """Mean over the detections of a picture of |mask and sprite| / |mask or sprite|, in 0 .. 1; 0
    for a picture without detections.

    The sprite is the clean one of the noun, scaled to the box of the detection, so its place and
    its size do not matter. A picture that shows nothing counts, or guidance that wipes out whatever
    is malformed would look good. Objects that cover each other score less, in true scenes too,
    whose mean is 0.84.
    """
    return float(np.mean([_iou(detection) for detection in detections])) if detections else 0.0


def _iou(detection: Detection) -> float:
    left, top, width, height = detection.box
    clean = _template(detection.noun).resize((width, height), Image.Resampling.LANCZOS)
    ink, mask = np.asarray(clean) > 127, detection.mask[top : top + height, left : left + width]
    return float((ink & mask).sum() / (ink | mask).sum())


@cache
def _template(noun: str) -> Image.Image:
    """The alpha of a sprite, cropped to what is more than half opaque, as the box of a mask is."""
    alpha = sprite(Thing(noun)).getchannel("A")
    return alpha.crop(alpha.point(lambda a: 255 * (a > 127)).getbbox())


@dataclass(frozen=True)
class Gaussian:
    """Mean [feature] and covariance [feature feature] of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def gaussian(rows: np.ndarray, counts: np.ndarray | None = None) -> Gaussian:
    """Of features [picture feature], where picture i counts ``counts[i]`` times (default: once).

    Raises ResultsError for fewer than two pictures.
    """
    rows = np.asarray(rows, dtype=np.float64)
    counts = np.ones(len(rows)) if counts is None else counts
    if counts.sum() < 2:
        raise ResultsError(f"a covariance needs two pictures, not {int(counts.sum())}")
    mean = counts @ rows / counts.sum()
    centred = rows - mean
    return Gaussian(mean, (centred * counts[:, None]).T @ centred / (counts.sum() - 1))


def frechet(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians (Heusel et al. 2017, arXiv
    1706.08500).

    The last trace is taken as that of (R S2 R)^(1/2), R = S1^(1/2), which is symmetric: exact also
    where a covariance is singular, as with fewer pictures than features. Estimated from n pictures
    the distance is too large by a term in about 1/n: compare equal n.
    """
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other.covariance @ root).clip(0)).sum()
    distance = (
        ((one.mean - other.mean) ** 2).sum()
        + np.trace(one.covariance)
        + np.trace(other.covariance)
        - 2 * shared
    )
    return float(max(distance, 0.0))


def scene(number: int, *, reference: bool = False) -> Scene:
    """The true scene of a number, without planted failures; those of the reference are others of
    the same distribution."""
    return sample(np.random.default_rng((17, int(reference), number)), failures=False)


@torch.inference_mode()
def redrawn(pipe: Any, scenes: Sequence[Scene]) -> list[Image.Image]:
    """Pictures of scenes after the autoencoder of a bundled pipeline, whose blur is no fault of
    what it generates."""
    pictures = to_tensor(np.stack([render(each)[0] for each in scenes])).to(
        pipe.device, pipe.vae.dtype
    )
    drawn = pipe.vae.decode(pipe.vae.encode(pictures).latent_dist.mean).sample
    images: list[Image.Image] = pipe.image_processor.postprocess(
        drawn.float().cpu(), output_type="pil"
    )
    return images
