"""Dynamic prompt learning written out from the paper (arXiv 2309.15664), one picture at a time:
oracles in float64. ``words`` are lists of token positions."""

import math
from itertools import combinations

import torch

from tests.reference.attend_and_excite import subject_loss
from tests.reference.inversion import null_text


def angle(a, b):
    pairs = list(zip(a.flatten(), b.flatten(), strict=True))
    sizes = [math.sqrt(sum(float(v) ** 2 for v in each.flatten())) for each in (a, b)]
    return sum(x * y for x, y in pairs) / (sizes[0] * sizes[1])


def leaks(maps, words, background):
    """Values of the three losses of maps [height, width, token]."""
    shown = [sum(maps[:, :, position] for position in word) for word in words]
    tokens = [position for word in words for position in word]
    balance = float(subject_loss(maps, tokens, True, maps.shape[2] - 1))
    pairs = [float(angle(a, b)) for a, b in combinations(shown, 2)]
    disjoint = sum(pairs) / len(pairs) if pairs else 0.0
    off = [float(angle(word, background)) for word in shown]
    return balance, disjoint, sum(off) / len(off)


def differentiable(maps, words, background):
    """Their weighted sum, with a gradient."""
    shown = [sum(maps[:, :, position] for position in word).flatten() for word in words]
    unit = [word / word.norm() for word in shown]
    tokens = [position for word in words for position in word]
    total = subject_loss(maps, tokens, True, maps.shape[2] - 1)
    pairs = [(a * b).sum() for a, b in combinations(unit, 2)]
    total = total + (0.05 * sum(pairs) / len(pairs) if pairs else 0)
    flat = background.flatten().double()
    return total + 0.05 * sum((word * flat).sum() / flat.norm() for word in unit) / len(unit)


def background(maps, cells, words):
    """Of mean maps [height, width, token] and [height, width, cell]: the clusters that no word
    covers."""
    height, width = maps.shape[:2]
    rows = [cells[y, x] for y in range(height) for x in range(width)]
    middle = sum(rows) / len(rows)
    centres = [min(rows, key=lambda row: float((row - middle).norm()))]
    while len(centres) < 5:
        far = max(rows, key=lambda row: min(float((row - c).norm()) for c in centres))
        centres.append(far)
    before = None
    while True:
        labels = [min(range(5), key=lambda k: float((row - centres[k]).norm())) for row in rows]
        if labels == before:
            break
        before = labels
        for k in range(5):
            own = [row for row, label in zip(rows, labels, strict=True) if label == k]
            centres[k] = sum(own) / len(own) if own else centres[k]
    mask = torch.zeros(height * width)
    for k in set(labels):
        own = [i for i, label in enumerate(labels) if label == k]
        shares = []
        for word in words:
            values = [float(sum(maps[i // width, i % width, p] for p in word))
                      for i in range(height * width)]  # fmt: skip
            low, high = min(values), max(values)
            shares.append(sum((values[i] - low) / (high - low) for i in own) / len(own))
        if max(shares) <= 0.2:
            mask[own] = 1.0
    return mask.reshape(height, width)


def learned(
    encode, attend, model, path, vectors, null, mask, words, step, timesteps, scale, rounds,
    iterations, threshold,
):  # fmt: skip
    """``encode(vectors)`` is the text, ``attend(z, t, text)`` the mean map, ``model(z, t, text)``
    the prediction. Returns the vectors and null texts of every step, and where they lead."""
    z, nouns, nulls = path[0], [], []
    for i, t in enumerate(timesteps):
        limits = 0.3 * math.exp(-i / 25), 0.9 * math.exp(-i / 25), 0.7 * math.exp(-i / 50)
        first = second = 0.0
        for k in range(1, rounds + 1):
            leaf = vectors.detach().requires_grad_()
            maps = attend(z, t, encode(leaf))
            values = leaks(maps.detach(), words, mask)
            if all(value < limit for value, limit in zip(values, limits, strict=True)):
                break
            differentiable(maps, words, mask).backward()
            first = 0.9 * first + 0.1 * leaf.grad
            second = 0.999 * second + 0.001 * leaf.grad**2
            mean, spread = first / (1 - 0.9**k), (second / (1 - 0.999**k)) ** 0.5
            vectors = leaf.detach() * (1 - 0.001 * 0.01) - 0.001 * mean / (spread + 1e-8)
        text = model(z, t, encode(vectors)).detach()
        null, z = null_text(
            text, model, z, path[i + 1], null, step, i, t, scale, iterations, threshold
        )
        nouns.append(vectors)
        nulls.append(null)
    return nouns, nulls, z
