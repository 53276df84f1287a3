"""Keys that are pooled, matched or moved, written from the papers as methods of ``editing``."""

import math

import torch

from tests.reference.editing import Method, matrix, softmax


class Regional(Method):
    """StyA2K's two forms over regions of ``size`` x ``size`` cells of the source. Pooled keys and
    values are means, of the cells with their weights and of the plain mean with weight 1."""

    def __init__(self, source, size, alpha=1.0, beta=0.0):
        self.source, self.size, self.alpha, self.beta = source, size, alpha, beta

    def regions(self, at):
        """By number {place in the region: cell}."""
        height, width = at.grid
        found = {}
        for y in range(height):
            for x in range(width):
                region = y // self.size, x // self.size
                found.setdefault(region, {})[y % self.size, x % self.size] = y * width + x
        return list(found.values())

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        query, key, value = q[row][head], k[row][head], v[row][head]
        plain = matrix(query, key, mask) @ value
        if image == self.source or at.kind == "cross":
            return plain
        other, cells = row - image + self.source, list(at.picture)
        theirs = k[other][head][cells], v[other][head][cells]
        text = [] if at.kind == "self" else list(at.text)
        pooled = self.pooled(at, theirs)
        for region in self.regions(at):
            of_picture = pooled or self.best(at, query[cells], region, theirs)
            for cell in region.values():
                i = cells[cell]
                s = [query[i] @ a / math.sqrt(len(a)) for a, _ in of_picture]
                s += [
                    query[i] @ key[p] / math.sqrt(len(key[p]))
                    + (0.0 if mask is None else mask[i, p])
                    for p in text
                ]
                seen = torch.stack([b for _, b in of_picture] + [value[p] for p in text])
                plain[i] = (softmax(torch.stack(s)[None]) @ seen)[0]
        return plain


class Distributed(Regional):
    def pooled(self, at, theirs):
        pooled = []
        for other in self.regions(at):
            keys, values = ([of[cell] for cell in other.values()] for of in theirs)
            mean = sum(keys) / len(keys)
            w = [1 / (1 + math.exp(-(self.beta + self.alpha * float(mean @ a)))) for a in keys]
            total = sum(w) + 1
            pooled.append(
                tuple(
                    (sum(u * a for u, a in zip(w, of, strict=True)) + sum(of) / len(of)) / total
                    for of in (keys, values)
                )
            )
        return pooled


class Progressive(Regional):
    def pooled(self, at, theirs):  # noqa: ARG002
        return []

    def best(self, at, query, region, theirs):
        def product(other):
            both = region.keys() & other.keys()
            return sum(float(query[region[y]] @ theirs[0][other[y]]) for y in both)

        best = max(self.regions(at), key=product)
        return [(theirs[0][cell], theirs[1][cell]) for cell in best.values()]


class Told(Method):
    """OSI: in the steps i < ``steps`` keys of words move by strength x ``along`` {site: [head
    dim]}; ``texts`` are the positions of every image."""

    def __init__(self, along, texts, strength, steps):
        self.along, self.texts, self.strength, self.steps = along, texts, strength, steps

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        key = k[row][head].clone()
        along = next((d for site, d in self.along.items() if site == at.name), None)
        if at.step < self.steps and branch == "cond" and along is not None:
            for position in self.texts[image]:
                key[at.text[position]] += self.strength * along[head]
        return matrix(q[row][head], key, mask) @ v[row][head]
