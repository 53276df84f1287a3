"""Masks of subjects from clusters of self-attention: how Bounded Attention refines its boxes.

Three clusters for every subject, by k-means of the rows of the map of cells, whose columns are
divided by their maxima. A cluster is of the subject s with the largest

    sum over its cells of B_s / the smaller of its size and of sum B_s,      at least 0.2

where B_s is sigma(10 (A_s / max A_s - 0.2)), from 0 to 1, in the mask that s had before. Officially
k-means starts 100 times at random; here at the point nearest to the mean of all, and every further
centre is the point farthest from those before it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_PER_SUBJECT, _ROUNDS = 3, 100
_THRESHOLD, _SLOPE = 0.2, 10.0


def refined(
    cells: Tensor, words: Tensor, before: Tensor, boxes: Tensor, centres: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Masks [subject cell] and the centres of the clusters, where the next ones begin, of the maps
    ``cells`` [cell cell] and ``words`` [subject cell]."""
    points = cells / cells.amax(0).clamp(min=1e-12)
    labels, centres = clusters(points, centres, _PER_SUBJECT * len(words))
    return filled(assigned(labels, words, before), boxes), centres


def clusters(points: Tensor, centres: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """The number of the cluster of every point [point dim], and the means, by Lloyd's rounds; an
    empty cluster keeps its centre."""
    if centres is None:
        chosen = [int((points - points.mean(0)).norm(dim=1).argmin())]
        while len(chosen) < count:
            chosen.append(int(torch.cdist(points, points[chosen]).amin(1).argmax()))
        centres = points[chosen]
    labels = torch.cdist(points, centres).argmin(1)
    for _ in range(_ROUNDS):
        member = F.one_hot(labels, len(centres)).to(points)
        sizes = member.sum(0)[:, None]
        centres = torch.where(sizes > 0, member.T @ points / sizes.clamp(min=1), centres)
        before, labels = labels, torch.cdist(points, centres).argmin(1)
        if (labels == before).all():
            break
    return labels, centres


def assigned(labels: Tensor, words: Tensor, before: Tensor) -> Tensor:
    """Masks [subject cell]; cells of clusters of nobody are in none."""
    strength = torch.sigmoid(_SLOPE * (words / words.amax(1, keepdim=True) - _THRESHOLD))
    least, most = strength.amin(1, keepdim=True), strength.amax(1, keepdim=True)
    strength = (strength - least) / (most - least).clamp(min=1e-12) * before
    member = F.one_hot(labels).to(strength)
    smaller = torch.minimum(strength.sum(1)[:, None], member.sum(0))
    score, subject = (strength @ member / smaller.clamp(min=1e-12)).max(0)
    numbers = torch.arange(len(words), device=words.device)
    return (subject[labels] == numbers[:, None]) & (score[labels] >= _THRESHOLD)


def filled(masks: Tensor, boxes: Tensor) -> Tensor:
    """A mask without cells becomes its box, which the others lose."""
    for number, box in enumerate(boxes):
        if not masks[number].any():
            masks = masks & ~box
            masks[number] = box
    return masks
