"""Edits of attention with every matrix written out, for one head: q, k, v (position, dim); s:
logits; A: softmax of the rows."""

import math

import torch


def logits(q, k):
    return q @ k.T / math.sqrt(q.shape[1])


def soft_identity(q, k, v, u):
    a = logits(q, k).softmax(-1)
    return ((1 - u) * a + u * torch.eye(len(a), dtype=a.dtype)) @ v


def soft_identity_in_the_picture(q, k, v, u, picture):
    """diffusers' joint PAG: logits among different cells of the picture are minus infinity."""
    s = logits(q, k)
    masked = s.clone()
    inside = range(*picture.indices(len(s)))
    for i in inside:
        for j in inside:
            if i != j:
                masked[i, j] = -math.inf
    rows = torch.stack([masked[i] if i in inside else s[i] for i in range(len(s))])
    return ((1 - u) * s.softmax(-1) + u * rows.softmax(-1)) @ v


def soft_uniform(q, k, v, u):
    a = logits(q, k).softmax(-1)
    return ((1 - u) * a + u / a.shape[1]) @ v


def kernel(sigma, cells):
    """An odd number of taps, about six deviations, and at most the first odd number that is not
    below the side."""
    wanted = math.ceil(6 * sigma)
    wanted += wanted % 2 == 0
    largest = cells if cells % 2 else cells + 1
    half = min(wanted, largest) // 2
    values = [math.exp(-((i / sigma) ** 2) / 2) for i in range(-half, half + 1)]
    return [v / sum(values) for v in values]


def smoothed(cells, sigma):
    """The Gaussian mean of the neighbours of every cell [height width ...]; cells beyond the border
    are reflected."""
    for axis in (0, 1):
        side, taps = cells.shape[axis], kernel(sigma, cells.shape[axis])
        mirror = [*range(side), *range(side - 2, 0, -1)]  # one period of the reflected axis
        lines = cells.unbind(axis)
        near = range(-(len(taps) // 2), len(taps) // 2 + 1)
        means = [
            sum(w * lines[mirror[(i + k) % len(mirror)]] for k, w in zip(near, taps, strict=True))
            for i in range(side)
        ]
        cells = torch.stack(means, axis)
    return cells


def smoothed_query(q, k, v, u, sigma, grid, picture):
    """Queries of the picture are smoothed, or all their mean."""
    cells = q[picture].unflatten(0, grid)
    mean = cells.mean((0, 1), keepdim=True).expand_as(cells)
    blurred = q.clone()
    blurred[picture] = (mean if math.isinf(sigma) else smoothed(cells, sigma)).flatten(0, 1)
    return (1 - u) * logits(q, k).softmax(-1) @ v + u * logits(blurred, k).softmax(-1) @ v


def temperature(q, k, v, tau):
    a = logits(q, k).softmax(-1)
    if tau == 0:
        return torch.stack([v[row.argmax()] for row in a])
    return (a.log() / tau).softmax(-1) @ v


def log_linear(q, k, v, u, epsilon=1e-6):
    """Every entry beside the diagonal of the identity is epsilon, taken from the diagonal, to which
    the official code adds one more."""
    if u == 1:
        return v
    a, rows = logits(q, k).softmax(-1), []
    for i, row in enumerate(a):
        target = torch.full_like(row, epsilon)
        target[i] += 1 - epsilon * (len(a) - 1)
        rows.append(((1 - u) * row.log() + u * target.log()).softmax(-1))
    return torch.stack(rows) @ v


def fisher_rao(q, k, v, u):
    """The point at share u of the geodesic on the sphere of square roots."""
    a = logits(q, k).softmax(-1)
    rows = []
    for i, row in enumerate(a):
        start, end = row.sqrt(), torch.eye(len(a), dtype=a.dtype)[i]
        angle = torch.acos(start @ end)
        point = (torch.sin((1 - u) * angle) * start + torch.sin(u * angle) * end) / torch.sin(angle)
        rows.append(point**2)
    return torch.stack(rows) @ v
