"""Edits of logits and keys by places, written from the papers as methods of ``editing``."""

import math

import torch

from tests.reference.editing import Method, matrix, softmax


def logits(q, k):
    return q @ k.T / math.sqrt(q.shape[1])


def cells(at):
    """(position, row, column) of every cell of the picture."""
    width = at.grid[1]
    return [(p, i // width, i % width) for i, p in enumerate(at.picture)]


class OfSome(Method):
    """A method for some images; the others are plain."""

    def __init__(self, images, method):
        self.images, self.method = images, method

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        method = self.method if image in self.images else super()
        return method.attend(at, image, branch, q, k, v, mask, row, head)


class Tempered(Method):
    """TACA: in the steps i < ``steps`` the logits of the picture's queries with the text's keys are
    multiplied by gamma."""

    def __init__(self, gamma, steps):
        self.gamma, self.steps = gamma, steps

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        s = logits(q[row][head], k[row][head])
        if at.kind == "joint" and at.step < self.steps:
            for query in at.picture:
                s[query, list(at.text)] *= self.gamma
        return softmax(s if mask is None else s + mask) @ v[row][head]


class Deviating(Method):
    """GRAG: keys of a group are bias times their mean, plus delta times what they differ from it;
    ``share`` (y, x, grid) of a cell says how much of it is changed."""

    def __init__(self, delta, bias=1.0, share=lambda *_: 1.0):
        self.delta, self.bias, self.share = delta, bias, share

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        key = k[row][head].clone()
        if at.kind == "joint":
            mean = sum(key[p] for p in at.picture) / len(at.picture)
            for p, y, x in cells(at):
                changed = self.bias * mean + self.delta * (key[p] - mean)
                m = self.share(y, x, at.grid)
                key[p] = (1 - m) * key[p] + m * changed
        return matrix(q[row][head], key, mask) @ v[row][head]


class Dense(Method):
    """DenseDiffusion. ``areas`` are functions (y, x, grid) of the regions, ``texts`` for every
    image the text positions of each; ``noise`` by step is t / 1000."""

    def __init__(self, areas, texts, noise, steps, cross=1.0, among=0.3, size=1.0):
        self.areas, self.texts, self.noise, self.steps = areas, texts, noise, steps
        self.cross, self.among, self.size, self.known = cross, among, size, {}

    def regions_of(self, at):
        """For each cell the numbers of its regions."""
        if at.grid not in self.known:
            self.known[at.grid] = [
                {n for n, area in enumerate(self.areas) if area(y, x, at.grid)}
                for _, y, x in cells(at)
            ]
        return self.known[at.grid]

    def changed(self, s, r, strength):
        """One row of one block."""
        s_max, s_min = s.max(), s.min()
        return s + strength * r * (s_max - s) - strength * (1 - r) * (s - s_min)

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        s = logits(q[row][head], k[row][head])
        if branch == "cond" and at.step < self.steps:
            of_cell = self.regions_of(at)
            text, picture = list(at.text), list(at.picture)
            for i, query in enumerate(picture):
                if not of_cell[i]:
                    continue
                near = s.new_tensor([bool(of_cell[i] & other) for other in of_cell])
                strength = self.noise[at.step] ** 5 * (1 - self.size * near.mean())
                if at.kind != "self":
                    named = s.new_zeros(len(text))
                    for n in of_cell[i]:
                        named[self.texts[image][n]] = 1.0
                    seen = [j for j, p in enumerate(text) if mask is None or mask[0, p] > -1000]
                    at_seen = [text[j] for j in seen]
                    part = self.changed(s[query, at_seen], named[seen], self.cross * strength)
                    s[query, at_seen] = part
                if at.kind != "cross":
                    part = self.changed(s[query, picture], near, self.among * strength)
                    s[query, picture] = part
        return softmax(s if mask is None else s + mask) @ v[row][head]


class Bounded(Method):
    """Bounded Attention: ``areas`` and ``texts`` as in ``Dense``; ``hidden`` and ``ends``: text
    positions of every image."""

    def __init__(self, areas, texts, hidden, ends):
        self.areas, self.texts, self.hidden, self.ends = areas, texts, hidden, ends
        self.known = {}

    def unseen(self, at, image, branch):
        """(query, key) pairs whose logit is minus infinity."""
        width, subjects, pairs = at.grid[1], range(len(self.areas)), set()
        own = [
            {n for n in subjects if self.areas[n](i // width, i % width, at.grid)}
            for i in range(len(at.picture))
        ]
        for i, query in enumerate(at.picture):
            if at.kind != "cross":
                for j, key in enumerate(at.picture):
                    if own[i] and own[j] and not own[i] & own[j]:
                        pairs.add((query, key))
            if at.kind != "self" and branch == "cond":
                seen = {p for n in own[i] for p in self.texts[image][n]}
                of_subjects = {p for n in subjects for p in self.texts[image][n]}
                no = (of_subjects - seen) | set(self.hidden[image])
                no |= set() if own[i] else set(self.ends[image])
                pairs |= {(query, at.text[p]) for p in no}
        return pairs

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        s = logits(q[row][head], k[row][head])
        s = s if mask is None else s + mask
        key = at.grid, at.kind, len(at.text), image, branch
        if key not in self.known:
            blocked = torch.zeros(s.shape, dtype=torch.bool)
            for pair in self.unseen(at, image, branch):
                blocked[pair] = True
            self.known[key] = blocked
        return softmax(s.masked_fill(self.known[key], -math.inf)) @ v[row][head]


class MutualSides(Method):
    """MasaCtrl with union, or with masks: ``inside(at)`` gives, for the source and for the picture,
    whether each cell is foreground. Foreground and background are two attentions over the cells of
    the source on that side, joined by the mask of the picture."""

    def __init__(self, source, first_step, acts, inside=None):
        self.source, self.first_step, self.acts, self.inside = source, first_step, acts, inside

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        own_key, own_value, query = k[row][head], v[row][head], q[row][head]
        if image == self.source or at.step < self.first_step or not self.acts(at):
            return matrix(query, own_key, mask) @ own_value
        other = row - image + self.source
        places = list(at.picture)
        theirs, values = k[other][head][places], v[other][head][places]
        if self.inside is None:
            s = logits(query, torch.cat([theirs, own_key]))
            if mask is not None:
                s[:, len(theirs) :] += mask
            return softmax(s) @ torch.cat([values, own_value])
        key, value = own_key.clone(), own_value.clone()
        key[places], value[places] = theirs, values
        s = logits(query, key)
        s = s if mask is None else s + mask
        sides = self.inside(at, image)
        if sides is None:
            return softmax(s) @ value
        source, picture = sides
        outputs = []
        for side in (True, False):
            hidden = [p for p, inside in zip(places, source, strict=True) if inside != side]
            of_side = s.clone()
            of_side[:, hidden] = -math.inf
            outputs.append(softmax(of_side) @ value)
        result = softmax(s) @ value  # of the text
        for p, inside in zip(places, picture, strict=True):
            result[p] = outputs[0][p] if inside else outputs[1][p]
        return result


class MutualWords(MutualSides):
    """MasaCtrl with masks found from the maps of words ``texts`` by image in the layers ``seen`` of
    the same step so far, all of one grid: means over heads and layers, from 0 to 1, at least the
    threshold. All branches in one call, or the conditional one first."""

    def __init__(self, source, acts, texts, seen, threshold):
        super().__init__(source, 0, acts, lambda at, image: self.sides[at.step, at.name].get(image))
        self.texts, self.seen, self.threshold = texts, seen, threshold
        self.maps, self.sides = {}, {}

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        count = len(self.texts)
        known = (at.step, at.name) in self.sides
        if not known and (branch == "cond" or len(q) > count):
            if at.kind != "self" and self.seen(at):
                for other in range(count):
                    self.note(at, other, q[len(q) - count + other], k[len(q) - count + other])
            self.sides[at.step, at.name] = {
                other: (self.shown(at, self.source), self.shown(at, other))
                for other in range(count)
                if (at.step, other) in self.maps
            }
        return super().attend(at, image, branch, q, k, v, mask, row, head)

    def note(self, at, image, q, k):
        text = [at.text[p] for p in self.texts[image]]
        heads = [matrix(a, b, None)[:, text].sum(1) for a, b in zip(q, k, strict=True)]
        mean = sum(heads) / len(heads)
        of_cells = mean[list(at.picture)] if at.kind == "joint" else mean
        self.maps.setdefault((at.step, image), []).append((of_cells, at.grid))

    def shown(self, at, image):
        """Of every cell of another grid, by the nearest cell before it."""
        maps = [of_cells for of_cells, _ in self.maps[at.step, image]]
        height, width = self.maps[at.step, image][0][1]
        mean = sum(maps) / len(maps)
        part = (mean - mean.min()) / (mean.max() - mean.min())
        return [
            bool(part[y * height // at.grid[0] * width + x * width // at.grid[1]] >= self.threshold)
            for _, y, x in cells(at)
        ]


class Redistributed(Method):
    """Sinks keep a share of their attention, the others get the rest in proportion."""

    def __init__(self, share, factor, most):
        self.share, self.factor, self.most = share, factor, most

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        a = matrix(q[row][head], k[row][head], mask)
        keys = a.shape[1] if mask is None else int((mask[0] > -1000).sum())
        often = [int((column > self.factor / keys).sum()) for column in a.T]
        sinks = [j for j, count in enumerate(often) if count > self.most * len(a)]
        if sinks and len(sinks) < keys:
            left = logits(q[row][head], k[row][head])
            left = left if mask is None else left + mask
            left[:, sinks] = -math.inf
            kept = self.share * a[:, sinks]  # the others in proportion, also where 1 - S is 0
            a = softmax(left) * (1 - kept.sum(1, keepdim=True))
            a[:, sinks] = kept
        return a @ v[row][head]
