"""Layers of DesignEdit, cell by cell: a place of the picture is emptied, and what was in it comes
to lie elsewhere. Row 0 of every branch is the source."""

from tests.reference.editing import Method, matrix


class Emptied(Method):
    """In the first ``steps`` keys of the picture are (1 - M) k in conditional rows, M = ``share``
    (y, x, grid). The latents of other images are the source's outside of the cells ``hole``
    (y, x), after each of the first ``kept`` steps: ``before`` (y, x) is the cell of the source's
    that comes to lie in a cell. After step ``paste`` the cells that ``pasted`` (y, x) gives are the
    source's; None where nothing comes to lie."""

    def __init__(self, share, hole, steps, kept, size, before=None, pasted=None, paste=None):
        self.share, self.hole, self.steps, self.kept, self.size = share, hole, steps, kept, size
        self.before, self.pasted, self.paste = before, pasted, paste

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        key = k[row][head].clone()
        if at.kind != "cross" and branch == "cond" and image > 0 and at.step < self.steps:
            for i, position in enumerate(at.picture):
                key[position] *= 1 - self.share(i // at.grid[1], i % at.grid[1], at.grid)
        return matrix(q[row][head], key, mask) @ v[row][head]

    def after(self, step, latents):
        source = latents[0].clone()
        for image in range(1, len(latents)):
            for y in range(self.size[0]):
                for x in range(self.size[1]):
                    if step < self.kept and not self.hole(y, x):
                        other = (y, x) if self.before is None else self.before(y, x)
                        self._put(latents[image], (y, x), source, other)
                    if step == self.paste and self.pasted(y, x) is not None:
                        self._put(latents[image], (y, x), source, self.pasted(y, x))

    def _put(self, latents, here, source, there):
        packed = latents.ndim == 2
        places = [(y * self.size[1] + x,) if packed else (..., y, x) for y, x in (here, there)]
        latents[places[0]] = source[places[1]]
