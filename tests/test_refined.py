"""Bounded Attention's masks from clusters, against the published description by loops."""

import math

import torch

from attncontrol.attention.sites import Where
from attncontrol.edits import BoundedAttention
from attncontrol.edits._clusters import assigned, clusters, filled, refined
from attncontrol.verbs.edit import edit
from tests.kit.runs import run
from tests.kit.zoo import sd


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def nearest(point, centres):
    far = [distance(point, c) for c in centres]
    return far.index(min(far))


def by_hand(cells, words, before, boxes):
    """Masks, as sets of cells."""
    n = len(cells)
    most = [max(cells[i][j] for i in range(n)) for j in range(n)]
    points = [[cells[i][j] / most[j] for j in range(n)] for i in range(n)]
    mean = [sum(p[j] for p in points) / n for j in range(n)]
    centres = [min(points, key=lambda p: distance(p, mean))]
    while len(centres) < 3 * len(words):
        centres.append(max(points, key=lambda p: min(distance(p, c) for c in centres)))
    labels = None
    while labels != (new := [nearest(p, centres) for p in points]):
        labels = new
        for c in range(len(centres)):
            own = [p for p, label in zip(points, labels, strict=True) if label == c]
            if own:
                centres[c] = [sum(p[j] for p in own) / len(own) for j in range(n)]
    maps = []
    for word, mask in zip(words, before, strict=True):
        s = [1 / (1 + math.exp(-10 * (a / max(word) - 0.2))) for a in word]
        s = [(a - min(s)) / (max(s) - min(s)) for a in s]
        maps.append([a if i in mask else 0.0 for i, a in enumerate(s)])
    masks = [set() for _ in words]
    for c in range(len(centres)):
        own = [i for i in range(n) if labels[i] == c]
        if own:
            scores = [sum(m[i] for i in own) / min(len(own), sum(m)) for m in maps]
            if max(scores) >= 0.2:
                masks[scores.index(max(scores))] |= set(own)
    for k, box in enumerate(boxes):
        if not masks[k]:
            masks = [set(box) if j == k else mask - box for j, mask in enumerate(masks)]
    return masks


def maps(seed):
    """Two things of 5 cells and a background of 10, with noise."""
    rng = torch.Generator().manual_seed(seed)
    kind = torch.tensor([0] * 5 + [1] * 5 + [2] * 10)
    cells = (kind[:, None] == kind).double() + 0.5 * torch.rand(20, 20, generator=rng).double()
    words = torch.stack([(kind == k).double() for k in (0, 1)])
    words = words + 0.3 * torch.rand(2, 20, generator=rng).double()
    return cells / cells.sum(1, keepdim=True), words


def test_masks_are_those_of_the_description():
    boxes = torch.zeros(2, 20, dtype=torch.bool)
    boxes[0, :8], boxes[1, 6:16] = True, True
    of = [set(box.nonzero()[:, 0].tolist()) for box in boxes]
    for seed in range(6):
        cells, words = maps(seed)
        masks, centres = refined(cells, words, boxes, boxes, None)
        found = [set(mask.nonzero()[:, 0].tolist()) for mask in masks]
        assert found == by_hand(cells.tolist(), words.tolist(), of, of)
        assert len(centres) == 6
        again, _ = refined(cells, words, masks, boxes, centres)
        assert not (again[0] & again[1]).any()


def test_empty_clusters_and_masks():
    points = torch.tensor([[0.0], [0.1], [5.0]])
    labels, centres = clusters(points, torch.tensor([[0.0], [5.0], [99.0]]), 3)
    assert labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(centres, torch.tensor([[0.05], [5.0], [99.0]]))
    none = torch.zeros(2, 3, dtype=torch.bool)
    words = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2]])
    assert not assigned(labels, words, none).any()
    boxes = torch.tensor([[True, True, False], [False, True, True]])
    assert filled(none, boxes).tolist() == [[True, False, False], [False, True, True]]


def test_boxes_hold_for_three_tenths_of_the_run():
    pipe, where = sd(), Where(kind=("self", "cross"), stride=4)
    regions = {"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.0, 1.0, 1.0)}
    kept = {False: [], True: []}
    for refined_ in kept:
        what = BoundedAttention(regions, refine=where if refined_ else None)
        with edit(pipe, what):
            run(
                "sd", pipe, ["a cat and a frog", "a frog and a cat"], steps=10,
                callback_on_step_end=lambda _p, _i, _t, given, r=refined_: (
                    kept[r].append(given["latents"].clone()) or given
                ),
            )  # fmt: skip
    same = [torch.equal(a, b) for a, b in zip(*kept.values(), strict=True)]
    assert same[:3] == [True] * 3
    assert not same[-1]
