"""Trains the ground-truth scorer: ``python -m attncontrol.sprites.training.train_scorer --work
DIR``.

Deterministic by ``--seed`` and resumed from a checkpoint in DIR; the weights become part of the
package.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from attncontrol.sprites.scenes import COLORS, NOUNS, Scene, Thing, compose, render, sample
from attncontrol.sprites.scorer import STRIDE, WEIGHTS, Scorer, detect
from attncontrol.sprites.training.fit import autocast, fit, to_tensor

IGNORED = -100
BATCH = 32
P_MOSAIC = 0.2  # batches of larger canvases
P_EMPTY = 0.04
P_EMPTY_IN_MOSAIC = 0.5


def _colored(rng: np.random.Generator) -> Scene:
    """One to three objects, each in a named colour, so that every pair of noun and colour
    occurs."""
    nouns = rng.choice(NOUNS, rng.integers(1, 4), replace=False)
    return compose(tuple(Thing(str(noun), str(rng.choice(list(COLORS)))) for noun in nouns), rng)


def labels(scene: Scene, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (h, w) of cells: noun (0 is background) and colour (IGNORED where none is named), from
    masks (objects, H, W)."""
    count, height, width = masks.shape
    coverage = masks.reshape(count, height // STRIDE, STRIDE, width // STRIDE, STRIDE).mean((2, 4))
    owner = np.where(coverage.max(0) > 0.5, coverage.argmax(0), count)
    nouns = [1 + NOUNS.index(thing.noun) for thing in scene.named]
    colors = [
        IGNORED if thing.color is None else list(COLORS).index(thing.color) for thing in scene.named
    ]
    return np.array([*nouns, 0])[owner], np.array([*colors, IGNORED])[owner]


def _mosaic(x: Tensor) -> Tensor:
    """(batch, ..., h, w) -> (batch / 4, ..., 2 h, 2 w), four pictures on one canvas."""
    rows = torch.cat((x[0::2], x[1::2]), -1)
    return torch.cat((rows[0::2], rows[1::2]), -2)


def _degrade(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Blur by resampling, shifted brightness, contrast and colour balance, fine and coarse noise:
    mild flaws of generators."""
    count, _, height, width = pictures.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=rng)

    scale = uniform(0.3, 1.0, 1).item()
    small = F.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
    blurred = F.interpolate(small, size=(height, width), mode="bicubic")
    x = torch.where(torch.rand(count, 1, 1, 1, generator=rng) < 0.5, blurred, pictures)
    x = x * uniform(0.9, 1.1, count, 3, 1, 1) * uniform(0.9, 1.1, count, 1, 1, 1)
    x = x + uniform(-0.04, 0.04, count, 3, 1, 1) + uniform(-0.08, 0.08, count, 1, 1, 1)
    for cell in (1, 8):
        noise = torch.randn(count, 3, height // cell, width // cell, generator=rng)
        x = x + uniform(0, 0.08, count, 1, 1, 1) * F.interpolate(
            noise, size=(height, width), mode="bilinear"
        )
    return x.clamp(-1, 1)


def make_batch(seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Degraded pictures (batch, 3, H, W) with noun and colour labels (batch, h, w)."""
    rng = np.random.default_rng((seed, 3, step))
    mosaic = rng.random() < P_MOSAIC
    data = []
    for _ in range(BATCH):
        scene = _colored(rng) if step % 2 else sample(rng, failures=False)
        if rng.random() < (P_EMPTY_IN_MOSAIC if mosaic else P_EMPTY):
            scene = replace(scene, shown=(None,) * len(scene.named))
        picture, masks = render(scene)
        data.append((picture, *labels(scene, masks)))
    pictures, nouns, colors = (np.stack(column) for column in zip(*data, strict=True))
    batch = (to_tensor(pictures), torch.from_numpy(nouns), torch.from_numpy(colors))
    x, noun_labels, color_labels = map(_mosaic, batch) if mosaic else batch
    return (
        _degrade(x, torch.Generator().manual_seed(int(rng.integers(2**62)))),
        noun_labels,
        color_labels,
    )


def train(work: Path, *, seed: int, steps: int, lr: float = 3e-3) -> Scorer:
    """Cross-entropy of nouns over all cells plus that of colours over the cells whose colour is
    named."""
    torch.manual_seed(seed)
    network = Scorer()

    def loss_of(step: int) -> Tensor:
        pictures, nouns, colors = make_batch(seed, step)
        with autocast():
            noun_logits, color_logits = network(
                pictures.contiguous(memory_format=torch.channels_last)
            )
        color_loss = F.cross_entropy(color_logits.float(), colors, ignore_index=IGNORED)
        return F.cross_entropy(noun_logits.float(), nouns) + 0.3 * color_loss

    fit(network, loss_of, steps=steps, lr=lr, checkpoint=work / "scorer.pt", decay=0.995)
    return network


def evaluate(count: int, seed: int) -> dict[str, float]:
    """Noun recall and precision, colour accuracy over tinted objects found and mean mask IoU over
    objects found."""
    scenes = [sample(np.random.default_rng((seed, 4, i)), failures=False) for i in range(count)]
    pictures, masks = zip(*(render(scene) for scene in scenes), strict=True)
    objects, detections, colors, overlaps = 0, 0, [], []
    for scene, exact, detected in zip(scenes, masks, detect(np.stack(pictures)), strict=True):
        by_noun = {f.noun: f for f in detected}
        objects, detections = objects + len(scene.named), detections + len(detected)
        for thing, mask in zip(scene.named, exact, strict=True):
            if thing.noun in by_noun:
                hit = by_noun[thing.noun]
                overlaps.append((hit.mask & mask).sum() / (hit.mask | mask).sum())
                colors += [hit.color == thing.color] if thing.color else []
    return {
        "recall": len(overlaps) / objects,
        "precision": len(overlaps) / max(detections, 1),
        "color": float(np.mean(colors)),
        "iou": float(np.mean(overlaps)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1600)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    network = train(args.work, seed=args.seed, steps=args.steps)
    path = Path(str(WEIGHTS))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(save({k: v.half().contiguous() for k, v in network.state_dict().items()}))
    print("1000 held-out scenes:", evaluate(1000, args.seed))


if __name__ == "__main__":
    main()
