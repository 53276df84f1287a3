"""The losses restated slowly from their formulas, for one image: nested loops over words and
pixels.

A: a list over tokens of lists over pixels of scalar tensors. A subject is (noun positions, list of
modifier positions).
"""

import itertools

import torch

from tests.reference.attend_and_excite import gaussian


def pixels(maps, token):
    return list(maps[..., token].flatten())


def normalised(values):
    total = sum(values)
    return [v / total for v in values]


def kl(a, b):
    return sum(p * torch.log(p / q) for p, q in zip(normalised(a), normalised(b), strict=True))


def symmetric(maps, i, j):
    a, b = pixels(maps, i), pixels(maps, j)
    return (kl(a, b) + kl(b, a)) / 2


def syngen(maps, subjects, words, entities=False):
    loss = 0
    for noun, modifiers in subjects:
        own = {*noun, *(p for m in modifiers for p in m)}
        outside = [u for u in words if u not in own]

        def away(source, outside=outside):
            return sum(max(symmetric(maps, p, u) for p in source) for u in outside) / len(outside)

        for modifier in modifiers:
            loss = loss + max(symmetric(maps, m, n) for m in modifier for n in noun)
            loss = loss - (away(noun) + away(modifier)) / 2
        if entities and not modifiers:
            loss = loss - away(noun)
    return loss


def cosine(a, b):
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return dot / (sum(p * p for p in a) ** 0.5 * sum(q * q for q in b) ** 0.5)


def ebama(maps, subjects, words, weight=0.5):
    def d(i, j):
        return 1 - cosine(pixels(maps, i), pixels(maps, j))

    bind, intensity = 0, 0
    sharp = torch.softmax(100 * maps[..., 1:-1], -1)
    for noun, modifiers in subjects:
        own = {*noun, *(p for m in modifiers for p in m)}
        outside = [u for u in words if u not in own]
        away = sum(max(d(n, u) for n in noun) for u in outside) / len(outside)
        for modifier in modifiers:
            bind = bind + sum(max(d(m, n) for n in noun) for m in modifier) - away
        if not modifiers:
            bind = bind - away
        intensity = intensity - gaussian(sharp[..., noun[0] - 1]).max()
    return bind + weight * intensity


def conform(maps, previous, subjects, temperature=0.5):
    items = []
    for step in (maps, previous):
        for label, (noun, modifiers) in enumerate(subjects):
            for p in (*noun, *(p for m in modifiers for p in m)):
                if step is not None:
                    items.append((label, list(gaussian(step[..., p]).flatten())))
    losses = []
    for a, (label, vector) in enumerate(items):
        for p, (other, positive) in enumerate(items):
            if a == p or label != other:
                continue
            near = torch.exp(cosine(vector, positive) / temperature)
            far = sum(torch.exp(cosine(vector, v) / temperature) for k, v in items if k != label)
            losses.append(-torch.log(near / (near + far)))
    return sum(losses) / len(losses) if losses else torch.zeros(())


def word(maps, noun):
    summed = [sum(parts) for parts in zip(*(pixels(maps, p) for p in noun), strict=True)]
    top = max(summed)
    return [v / top for v in summed]


def overlap(a, b):
    return sum(min(p, q) for p, q in zip(a, b, strict=True)) / sum(
        p + q for p, q in zip(a, b, strict=True)
    )


def segregation(maps, subjects):
    words = [word(maps, noun) for noun, _ in subjects]
    return sum(overlap(words[m], words[n]) for m in range(len(words)) for n in range(m))


def retention(maps, previous, subjects):
    total = 0
    for noun, _ in subjects:
        mask = [torch.tensor(float(v > 0.5), dtype=maps.dtype) for v in word(previous, noun)]
        total = total + 1 - overlap(word(maps, noun), mask)
    return total


def attendance(image):
    """Total variation, mean of the differences along both axes."""
    height, width = image.shape
    down = [abs(image[y + 1, x] - image[y, x]) for y in range(height - 1) for x in range(width)]
    across = [abs(image[y, x + 1] - image[y, x]) for y in range(height) for x in range(width - 1)]
    return sum(down) / len(down) + sum(across) / len(across)


def divergence(a, b):
    p, q = normalised(a), normalised(b)
    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return (
        sum(
            x * torch.log(x / m) + y * torch.log(y / m)
            for x, y, m in zip(p, q, middle, strict=True)
        )
        / 2
    )


def divide_and_bind(maps, subjects, weight=1.0):
    sharp = torch.softmax(100 * maps[..., 1:-1], -1)

    def image(word):
        return gaussian(sum(sharp[..., p - 1] for p in word) / len(word))

    losses = []
    for noun, modifiers in subjects:
        apart = sum(
            divergence(list(image(noun).flatten()), list(image(m).flatten())) for m in modifiers
        ) / max(len(modifiers), 1)
        losses.append(weight * apart - attendance(image(noun)))
    return max(losses)


def ranged(maps, word):
    values = [
        sum(parts) / len(word) for parts in zip(*(pixels(maps, p) for p in word), strict=True)
    ]
    low, high = min(values), max(values)
    return [(v - low) / (high - low) for v in values]


def at_least(truth):
    return torch.log(truth) if truth > 1e-6 else torch.tensor(1e-6, dtype=truth.dtype).log()


def cost(truths):
    """Minus the logarithm of a geometric mean."""
    return -sum(at_least(t) for t in truths) / len(truths)


def predicated(maps, subjects, existence=0.1, alpha=0.3):
    sharp = torch.softmax(100 * maps[..., 1:-1], -1)
    present = []
    for noun, _ in subjects:
        for p in noun:
            nowhere = torch.exp(-cost([1 - v for v in sharp[..., p - 1].flatten()]))
            present.append(-at_least(1 - nowhere))
    bound, leaked = [], []
    for i, (noun, modifiers) in enumerate(subjects):
        n = ranged(maps, noun)
        for m in (ranged(maps, word) for word in modifiers):
            both = [
                [1 - x * (1 - y) for x, y in zip(*pair, strict=True)] for pair in ((n, m), (m, n))
            ]
            bound.append(sum(cost(truths) for truths in both))
        for j, (_, others) in enumerate(subjects):
            leaked += [
                cost([1 - x * y for x, y in zip(n, ranged(maps, m), strict=True)])
                for m in others
                if i != j
            ]
    means = [sum(costs) / len(costs) if costs else 0 for costs in (present, bound, leaked)]
    return existence * means[0] + means[1] + alpha * means[2]


def covered(box, y, x, height, width):
    """The part of a cell that a box covers."""
    left, top, right, bottom = box
    across = max(0, min(right, (x + 1) / width) - max(left, x / width)) * width
    down = max(0, min(bottom, (y + 1) / height) - max(top, y / height)) * height
    return across * down


def cells(box, height, width):
    parts = {(y, x): covered(box, y, x, height, width) for y in range(height) for x in range(width)}
    return {cell for cell, part in parts.items() if part > 0.5 or part == max(parts.values())}


def largest(values):
    kept = sorted(values, reverse=True)[: max(1, int(0.2 * len(values)))]
    return sum(kept) / len(kept)


def boxdiff(maps, words, boxes):
    """Boxes as the official code has them: first cells x1, y1 inside, x2, y2 behind; the corner
    terms look at x1 - 1 .. x1 + 1 and x2 - 1 .. x2 + 1 as far as they exist."""
    height, width = maps.shape[:2]
    loss = 0
    for word, box in zip(words, boxes, strict=True):
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[tuple(zip(*cells(box, height, width), strict=True))] = True
        for token in word:
            (image,) = word_maps(maps, [[token]])
            loss = loss + 1 - largest(image[inside]) + largest(image[~inside])
            for values, mask in ((image, inside), (image.T, inside.T)):  # columns, rows
                first = int(mask.any(0).nonzero().min())
                behind = int(mask.any(0).nonzero().max()) + 1
                window = {first - 1, first, first + 1, behind - 1, behind, behind + 1}
                near = sorted(window & set(range(mask.shape[1])))
                aims = mask.any(0).to(values)
                gaps = [(max(values[:, a]) - aims[a]).abs() for a in near]
                loss = loss + sum(gaps) / mask.shape[1]
    return loss


def layout_guidance(layers, words, boxes):
    """``layers``: (heads, height, width, token) each."""
    terms = []
    for layer in layers:
        heads, height, width, _ = layer.shape
        for word, box in zip(words, boxes, strict=True):
            parts = {
                (y, x): covered(box, y, x, height, width)
                for y in range(height)
                for x in range(width)
            }
            largest_part = max(parts.values())
            shares = []
            for head in range(heads):
                for token in word:
                    image = layer[head, ..., token]
                    inside = sum(image[c] * part / largest_part for c, part in parts.items())
                    shares.append((1 - inside / image.sum()) ** 2)
            terms.append(sum(shares) / len(shares))
    return sum(terms) / len(terms)


def middle_of_mass(maps, word):
    """Of the squared map of a word, (across, down)."""
    height, width, _ = maps.shape
    weights = {
        (y, x): sum(maps[y, x, token] for token in word) ** 2
        for y in range(height)
        for x in range(width)
    }
    total = sum(weights.values())
    across = sum(w * (x + 0.5) / width for (_, x), w in weights.items()) / total
    return across, sum(w * (y + 0.5) / height for (y, _), w in weights.items()) / total


def centering(maps, words, boxes):
    gaps = []
    for word, (left, top, right, bottom) in zip(words, boxes, strict=True):
        across, down = middle_of_mass(maps, word)
        gaps.append((across - (left + right) / 2) ** 2 + (down - (top + bottom) / 2) ** 2)
    return sum(gaps) / len(gaps)


def apart(layers, maps, subjects):
    """``layers``: (heads, height, width, token) each; ``maps``: their mean over heads and
    layers."""

    centres = [[v.item() for v in middle_of_mass(maps, noun)] for noun, _ in subjects]
    common = [sum(values) / len(centres) for values in zip(*centres, strict=True)]
    places = []
    for x, y in centres:
        length = ((x - common[0]) ** 2 + (y - common[1]) ** 2) ** 0.5
        places.append((0.5 + (x - common[0]) / length / 4, 0.5 + (y - common[1]) / length / 4))
    loss = 0
    for k, (noun, modifiers) in enumerate(subjects):
        tokens = [*noun, *(token for modifier in modifiers for token in modifier)]
        across, down = middle_of_mass(maps, tokens)
        loss = loss + ((across - places[k][0]) ** 2 + (down - places[k][1]) ** 2) / len(subjects)
        for layer in layers:
            heads, height, width, _ = layer.shape
            own = []
            for y in range(height):
                for x in range(width):
                    distances = [
                        ((x + 0.5) / width - a) ** 2 + ((y + 0.5) / height - b) ** 2
                        for a, b in places
                    ]
                    if distances.index(min(distances)) == k:
                        own.append((y, x))
            shares = []
            for head in range(heads):
                for token in tokens:
                    image = layer[head, ..., token]
                    shares.append((1 - sum(image[cell] for cell in own) / image.sum()) ** 2)
            loss = loss + sum(shares) / len(shares) / len(subjects) / len(layers)
    return loss


def word_maps(maps, words):
    """Attend-and-Excite's map of every word: mean over its tokens."""
    sharp = torch.softmax(100 * maps[..., 1:-1], -1)
    return [sum(gaussian(sharp[..., token - 1]) for token in word) / len(word) for word in words]


def attention_refocusing(maps, picture, words, boxes, weight=1.0):
    """``picture``: (height, width, height, width)."""
    height, width = maps.shape[:2]
    grid = [(y, x) for y in range(height) for x in range(width)]
    front, sar = [], []
    for word, box in zip(words, boxes, strict=True):
        inside = cells(box, height, width)
        outside = [c for c in grid if c not in inside]
        for token in word:
            (image,) = word_maps(maps, [[token]])
            front.append(
                1
                - max(image[c] for c in inside)
                + max([image[c] for c in outside] + [0 * image[0, 0]])
            )
        total = (
            sum(sum(picture[p][c] for c in outside) for p in inside) if outside else 0 * maps.sum()
        )
        sar.append(total / max(len(outside), 1))
    return sum(front) / len(front) + weight * sum(sar) / len(sar)


def bounded_guidance(maps, picture, words, boxes, end, words_weight, cells_weight):
    """Bounded guidance: sums over cells of boxes and of the background."""
    height, width = maps.shape[:2]
    inside = [cells(box, height, width) for box in boxes]
    grid = [(y, x) for y in range(height) for x in range(width)]
    background = [c for c in grid if not any(c in box for box in inside)]

    def term(foreground, behind):
        return (1 - foreground / (foreground + len(boxes) * behind)) ** 2

    loss = 0
    for word, box in zip(words, inside, strict=True):
        nothing = 0 * maps.sum()
        of_words = [
            sum([maps[c][k] for c in some for k in [*word, end]], nothing)
            for some in (box, background)
        ]
        among = [
            sum([picture[c][d] for c in some for d in box], 0 * picture.sum())
            for some in (box, background)
        ]
        loss = loss + words_weight * term(*of_words) + cells_weight * term(*among)
    return loss / len(words)


def otsu(image):
    """Cells above the threshold with the largest variance between the classes, by trying every
    value."""
    image = image.detach()
    values = [float(v) for v in image.flatten()]
    best, at = -1.0, None
    for threshold in sorted(set(values))[:-1]:
        low, high = [v for v in values if v <= threshold], [v for v in values if v > threshold]
        between = len(low) * len(high) * (sum(low) / len(low) - sum(high) / len(high)) ** 2
        if between > best:
            best, at = between, threshold
    height, width = image.shape
    return [
        (y, x) for y in range(height) for x in range(width) if at is None or float(image[y, x]) > at
    ]


def self_cross(maps, picture, words):
    height, width = maps.shape[:2]
    grid = [(y, x) for y in range(height) for x in range(width)]
    found = [image / image.sum() for image in word_maps(maps, words)]
    seen = []
    for image in found:
        region = sum(image[p] * gaussian(picture[p]) for p in otsu(image))
        seen.append(region / region.sum())
    total, pairs = 0, 0
    for i in range(len(words)):
        for j in range(i + 1, len(words)):
            total = total + sum(
                min(seen[i][c], found[j][c]) + min(seen[j][c], found[i][c]) for c in grid
            )
            pairs += 1
    return total / pairs


def partcraft(maps, words, boxes):
    height, width = maps.shape[:2]
    terms = []
    for y in range(height):
        for x in range(width):
            amounts = [sum(maps[y, x, token] for token in word) for word in words]
            for amount, box in zip(amounts, boxes, strict=True):
                share = amount / sum(amounts)
                terms.append(
                    -torch.log(share if (y, x) in cells(box, height, width) else 1 - share)
                )
    return sum(terms) / len(terms)


def unit(image):
    return (image - image.min()) / (image.max() - image.min())


def place(maps, token):
    height, width = maps.shape[:2]
    total = sum(pixels(maps, token))
    x = (
        sum(maps[r, c, token] * (c + 0.5) / width for r in range(height) for c in range(width))
        / total
    )
    y = (
        sum(maps[r, c, token] * (r + 0.5) / height for r in range(height) for c in range(width))
        / total
    )
    return x, y


def outline(maps, token):
    return unit(1 / (1 + torch.exp(-10 * (unit(maps[..., token]) - 0.5))))


def look(maps, token, layer):
    """Mean of the features of a layer over the outline of a token."""
    mask = outline(maps, token).detach()
    cells = [(r, c) for r in range(mask.shape[0]) for c in range(mask.shape[1])]
    return [
        sum(mask[cell] * layer[(*cell, k)] for cell in cells) / mask.sum()
        for k in range(layer.shape[-1])
    ]


def self_guidance(maps, centers, sizes):
    """``centers``: token -> (x, y); ``sizes``: token -> share."""
    loss = 0
    for token, (x0, y0) in centers.items():
        x, y = place(maps, token)
        loss = loss + abs(x - x0) + abs(y - y0)
    for token, share in sizes.items():
        loss = loss + abs(outline(maps, token).mean() - share)
    return loss


def rearrange(maps, layers, first, first_layers, moves, scales, shapes, appearances):
    """Against another picture: ``moves``: token -> way, ``scales``: token -> factor; the rest lists
    of tokens."""
    loss = 0
    for token, (dx, dy) in moves.items():
        (x, y), (x0, y0) = place(maps, token), place(first, token)
        loss = loss + abs(x - (x0 + dx)) + abs(y - (y0 + dy))
    for token, factor in scales.items():
        loss = loss + abs(outline(maps, token).mean() - factor * outline(first, token).mean())
    for token in shapes:
        a, b = (
            pixels(outline(maps, token)[..., None], 0),
            pixels(outline(first, token)[..., None], 0),
        )
        loss = loss + sum(abs(p - q) for p, q in zip(a, b, strict=True)) / len(a)
    for token in appearances:
        for layer, other in zip(layers, first_layers, strict=True):
            a, b = look(maps, token, layer), look(first, token, other)
            loss = loss + sum(abs(p - q) for p, q in zip(a, b, strict=True)) / len(a) / len(layers)
    return loss


def initno_search(maps, picture, words):
    """Cross, conflict only once cross is at most 1/2, and for every word its largest background
    value if that exceeds the smallest foreground value; foreground: what a flood from the peak
    reaches within the Otsu mask."""
    found = word_maps(maps, words)
    peaks = [divmod(int(image.detach().argmax()), image.shape[1]) for image in found]
    cross = torch.stack([1 - image[peak] for image, peak in zip(found, peaks, strict=True)]).amax()
    shares = []
    for i, j in itertools.combinations(range(len(words)), 2):
        one, other = (gaussian(picture[peaks[k]]) for k in (i, j))
        shares.append(torch.where(one < other, one, other).sum() / (one.sum() + other.sum()))
    loss = cross if cross > 0.5 or not shares else cross + sum(shares) / len(shares)
    for image, peak in zip(found, peaks, strict=True):
        front = flooded(set(otsu(image)), peak)
        places = torch.ones_like(image).nonzero().tolist()
        back = [image[y, x] for y, x in places if (y, x) not in front]
        if back and max(back) > min(image[cell] for cell in front):
            loss = loss + max(back)
    return loss


def flooded(mask, cell):
    """The cells of ``mask`` that ``cell`` is connected with by their sides."""
    seen = {cell}
    while True:
        more = {
            (y, x)
            for y, x in mask - seen
            if seen & {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)}
        }
        if not more:
            return seen
        seen |= more
