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
    size = math.ceil(6 * sigma)
    size = size if size % 2 else size + 1
    while size > cells or size % 2 == 0:
        size -= 1
    values = [math.exp(-0.5 * ((i - size // 2) / sigma) ** 2) for i in range(size)]
    return [v / sum(values) for v in values]


def smoothed_query(q, k, v, u, sigma, grid, picture):
    """Each query of the picture becomes the Gaussian mean of its neighbours; cells beyond the
    border are reflected."""
    height, width = grid
    cells = q[picture].unflatten(0, grid)
    if math.isinf(sigma):
        smooth = cells.mean((0, 1), keepdim=True).expand_as(cells)
    else:
        smooth = torch.zeros_like(cells)
        down, right = kernel(sigma, height), kernel(sigma, width)
        for y in range(height):
            for x in range(width):
                for a, wa in enumerate(down):
                    for b, wb in enumerate(right):
                        row, column = y + a - len(down) // 2, x + b - len(right) // 2
                        row = abs(row) if row < height else 2 * (height - 1) - row
                        column = abs(column) if column < width else 2 * (width - 1) - column
                        smooth[y, x] += wa * wb * cells[row, column]
    blurred = q.clone()
    blurred[picture] = smooth.flatten(0, 1)
    return (1 - u) * logits(q, k).softmax(-1) @ v + u * logits(blurred, k).softmax(-1) @ v


def temperature(q, k, v, tau):
    a = logits(q, k).softmax(-1)
    if tau == 0:
        return torch.stack([v[row.argmax()] for row in a])
    return (a.log() / tau).softmax(-1) @ v


def log_linear(q, k, v, u, epsilon=1e-6):
    a = logits(q, k).softmax(-1)
    count = len(a)
    target = (1 - epsilon) * torch.eye(count, dtype=a.dtype) + epsilon / count
    mixed = a ** (1 - u) * target**u
    return mixed / mixed.sum(1, keepdim=True) @ v


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
