"""The computations on attention restated slowly from their formulas, in numpy: nested loops over
cells, words and tokens."""

import math

import numpy as np
from scipy.optimize import linprog


def cubic(distance, a=-0.75):
    """Keys' convolution kernel."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def linear(distance):
    return max(0.0, 1 - abs(distance))


def upscaled(plane, height, width, kernel, reach):
    """Resampling with pixel centres aligned; pixels outside repeat the border (for ``linear``:
    coordinates are clamped)."""
    rows, columns = plane.shape
    found = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            at_y, at_x = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
            if kernel is linear:
                at_y, at_x = max(at_y, 0.0), max(at_x, 0.0)
            for j in range(math.floor(at_y) - reach + 1, math.floor(at_y) + reach + 1):
                for i in range(math.floor(at_x) - reach + 1, math.floor(at_x) + reach + 1):
                    value = plane[min(max(j, 0), rows - 1), min(max(i, 0), columns - 1)]
                    found[y, x] += kernel(at_y - j) * kernel(at_x - i) * value
    return found


def bicubic(plane, height, width):
    return upscaled(plane, height, width, cubic, 2)


def bilinear(plane, height, width):
    return upscaled(plane, height, width, linear, 1)


def finest(layers):
    return max((of.shape[-3:-1] for of in layers), key=lambda grid: grid[0] * grid[1])


def daam(layers, words=None):
    """``layers``: [step head height width token] of one image; ``words``: the places on the token
    axis whose sum the maps are divided by."""
    height, width = finest(layers)
    tokens = layers[0].shape[-1]
    found, count = np.zeros((height, width, tokens)), 0
    for of in layers:
        for head in range(of.shape[1]):
            count += 1
            for k in range(tokens):
                summed = sum(of[t, head, :, :, k] for t in range(len(of)))
                found[..., k] += np.maximum(bicubic(summed, height, width), 0)
    found /= count
    if words is None:
        return found
    total = 1e-6 + sum(found[..., k] for k in words)
    return np.stack([found[..., k] / total for k in range(tokens)], -1)


def per_resolution(layers):
    height, width = finest(layers)
    grids = list(dict.fromkeys(of.shape[-3:-1] for of in layers))
    found = np.zeros((height, width, layers[0].shape[-1]))
    for grid in grids:
        of_grid = [of.mean((0, 1)) for of in layers if of.shape[-3:-1] == grid]
        mean = sum(of_grid) / len(of_grid)
        for k in range(mean.shape[-1]):
            found[..., k] += bilinear(mean[..., k], height, width) / len(grids)
    return found


def cosine(a, b):
    dot = norm_a = norm_b = 0.0
    for p, q in zip(a.flat, b.flat, strict=True):
        dot, norm_a, norm_b = dot + p * q, norm_a + p * p, norm_b + q * q
    return dot / math.sqrt(norm_a * norm_b)


def symmetric_kl(a, b):
    p, q = (np.maximum(m / m.sum(), 1e-12) for m in (a, b))
    return (
        sum(x * math.log(x / y) + y * math.log(y / x) for x, y in zip(p.flat, q.flat, strict=True))
        / 2
    )


def propagate(word, among, times, how):
    size = word.size
    s = among.reshape(size, size)
    s = s / s.sum(1, keepdims=True)
    if how == "symmetric":
        w = np.array([[(s[i, j] + s[j, i]) / 2 for j in range(size)] for i in range(size)])
        d = w.sum(1)
        s = np.array([[w[i, j] / math.sqrt(d[i] * d[j]) for j in range(size)] for i in range(size)])
    m = word.ravel()
    for _ in range(times):
        if how == "spread":
            m = np.array([sum(s[i, j] * m[i] for i in range(size)) for j in range(size)])
        else:
            m = np.array([sum(s[i, j] * m[j] for j in range(size)) for i in range(size)])
    return m.reshape(word.shape)


def average_precision(scores, truth):
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.ravel()), reverse=True):
        chosen = scores >= threshold
        hits = (chosen & truth).sum()
        recall, precision = hits / max(truth.sum(), 1), hits / chosen.sum()
        total, before = total + (recall - before) * precision, recall
    return total


def two_class(word, truth):
    height, width = truth.shape
    full = np.array(
        [
            [word[y * word.shape[0] // height, x * word.shape[1] // width] for x in range(width)]
            for y in range(height)
        ]
    )
    mask = full > full.mean()
    overlaps = [(a & b).sum() / max((a | b).sum(), 1) for a, b in ((mask, truth), (~mask, ~truth))]
    scaled = (full - full.min()) / max(full.max() - full.min(), 1e-300)
    ap = average_precision(
        np.concatenate([scaled.ravel(), 1 - scaled.ravel()]),
        np.concatenate([truth.ravel(), ~truth.ravel()]),
    )
    return (mask == truth).mean(), sum(overlaps) / 2, ap


def entropy(plane):
    p = [v / plane.sum() for v in plane.flat]
    return -sum(v * math.log(v) for v in p if v > 0) / math.log(plane.size)


def spread(plane):
    height, width = plane.shape
    p = plane / plane.sum()
    y = sum(p[j, i] * j for j in range(height) for i in range(width))
    x = sum(p[j, i] * i for j in range(height) for i in range(width))
    variance = sum(
        p[j, i] * ((j - y) ** 2 + (i - x) ** 2) for j in range(height) for i in range(width)
    )
    return math.sqrt(variance) / math.sqrt(height**2 + width**2)


def spectrum(among):
    """By the eigenvalues of the random walk D^-1 W, which are 1 minus those of the normalised
    Laplacian."""
    rows = among / among.sum(1, keepdims=True)
    w = (rows + rows.T) / 2
    return np.sort(1 - np.linalg.eigvals(w / w.sum(1, keepdims=True)).real)


def residual(attention):
    """0.5 A + 0.5 I with rows that sum to 1."""
    size = len(attention)
    mixed = np.array(
        [[0.5 * attention[i, j] + 0.5 * (i == j) for j in range(size)] for i in range(size)]
    )
    return np.array([row / sum(row) for row in mixed])


def rollout(layers):
    """By summing over every path through the layers, from the last one down."""
    size = len(layers[0])
    found = np.eye(size)
    for attention in reversed(layers):
        mixed, longer = residual(attention), np.zeros((size, size))
        for i in range(size):
            for j in range(size):
                longer[i, j] = sum(found[i, k] * mixed[k, j] for k in range(size))
        found = longer
    return found


def flow(layers, query, group):
    """The largest flow as a linear program: variables are the flows of the edges."""
    size, depth = len(layers[0]), len(layers)
    capacity = np.array([residual(attention) for attention in layers])  # layer from to
    number = np.arange(capacity.size).reshape(capacity.shape)
    gain, balance = np.zeros(capacity.size), []
    for j in group:
        gain[number[0, :, j]] -= 1  # linprog minimises
    for layer in range(depth):
        for i in range(size):
            row = np.zeros(capacity.size)
            row[number[layer, i]] += 1  # leaves i
            if layer + 1 < depth:
                row[number[layer + 1, :, i]] -= 1  # comes to i
            if layer + 1 < depth or i != query:
                balance.append(row)
    bounds = [(0, c) for c in capacity.ravel()]
    for j in set(range(size)) - set(group):
        for i in range(size):
            bounds[number[0, i, j]] = (0, 0)  # leads nowhere
    result = linprog(gain, A_eq=np.array(balance), b_eq=np.zeros(len(balance)), bounds=bounds)
    assert result.success
    return -result.fun


def a_bar(attention, gradient):
    heads, queries, keys = attention.shape
    return np.array(
        [
            [
                sum(max(0, gradient[h, i, j] * attention[h, i, j]) for h in range(heads)) / heads
                for j in range(keys)
            ]
            for i in range(queries)
        ]
    )


def normalised(relevance):
    rest = relevance - np.eye(len(relevance))
    return np.array([row / sum(row) if sum(row) else row for row in rest]) + np.eye(len(relevance))


def bi_modal(layers, cells, tokens):
    """Equations 5 to 11 with R as a dictionary of pairs of streams: "s" the picture, "q" the
    text."""
    sizes = {"s": cells, "q": tokens}
    r = {
        (a, b): np.eye(sizes[a]) if a == b else np.zeros((sizes[a], sizes[b]))
        for a in "sq"
        for b in "sq"
    }
    for stream, kind, attention, gradient in layers:
        x = "s" if stream == "picture" else "q"
        y = "q" if x == "s" else "s"
        bar = a_bar(attention, gradient)
        if kind == "self":
            r[x, x], r[x, y] = r[x, x] + bar @ r[x, x], r[x, y] + bar @ r[x, y]
        else:
            new = r[x, y] + normalised(r[x, x]).T @ bar @ normalised(r[y, y])
            r[x, x] = r[x, x] + bar @ r[y, x]
            r[x, y] = new
    return r


def attended(query, key, value):
    """Attention outputs [query dim] of one head, one query after the other."""
    outputs = []
    for q in query:
        logits = key @ q / math.sqrt(len(q))
        p = np.exp(logits - logits.max())
        outputs.append((p / p.sum()) @ value)
    return np.array(outputs)


def concept_products(cells, pieces, concepts):
    """``cells`` and ``pieces`` [position width] with heads side by side."""
    return np.array(
        [[sum(cell @ pieces[p] for p in of) / len(of) for cell in cells] for of in concepts]
    )


def guided(values, picture, reach, epsilon):
    """Least squares window by window: values ~ a . color + b with a penalty on a; then the mean
    over the windows of a pixel."""
    colors = picture / 255.0
    rows, columns = values.shape

    def window(y, x):
        down, right = (
            range(max(0, y - reach), min(rows, y + reach + 1)),
            range(max(0, x - reach), min(columns, x + reach + 1)),
        )
        return [(j, i) for j in down for i in right]

    fits = {}
    for y in range(rows):
        for x in range(columns):
            cells = window(y, x)
            design = np.array([[*colors[cell], 1.0] for cell in cells])
            penalty = np.diag([epsilon * len(cells)] * 3 + [0.0])
            fits[y, x] = np.linalg.solve(
                design.T @ design + penalty, design.T @ np.array([values[cell] for cell in cells])
            )
    found = np.zeros((rows, columns))
    for y in range(rows):
        for x in range(columns):
            fit = np.mean([fits[cell] for cell in window(y, x)], axis=0)
            found[y, x] = max(0.0, fit @ [*colors[y, x], 1.0])
    return found
