"""Edits of logits and keys by places, written from the papers as methods of ``editing``."""

import math

from tests.reference.editing import Method, matrix, softmax


def logits(q, k):
    return q @ k.T / math.sqrt(q.shape[1])


def cells(at):
    """(position, row, column) of every cell of the picture."""
    width = at.grid[1]
    return [(p, i // width, i % width) for i, p in enumerate(at.picture)]


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
