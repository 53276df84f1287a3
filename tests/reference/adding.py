"""Add-it, row by row. Row 0 of every branch is the source."""

import math

import torch

from tests.reference.editing import Method, matrix, softmax


class Added(Method):
    """Others see the keys of the source's picture beside their own, which are multiplied by gamma:
    in the steps 0 .. ``double``, in single blocks 0 .. ``single``. Before the step ``structure``
    their latents are (1 - s) x + s e, with the picture x of which the source's latents are
    (1 - s) x + s e_source: ``noise`` e [image ...], ``sigmas`` s. After the step ``blend`` their
    latents are the source's where the mean map of ``words`` {image: positions} in it and both steps
    before is not above Otsu's threshold. ``gamma`` None is found in the step ``measured``: text
    queries give ``ratio`` times as much to their own picture as to the source's in double blocks;
    1.05 until then."""

    def __init__(self, gamma, double, single, structure, blend, noise, sigmas, words, size, **auto):
        self.gamma, self.double, self.single = gamma, double, single
        self.structure, self.blend, self.noise, self.sigmas = structure, blend, noise, sigmas
        self.words, self.size, self.auto = words, size, auto
        self.sums, self.found, self.seen = {}, {}, {}

    def logits(self, gamma, own, theirs, query):
        keys = torch.cat([own * gamma, torch.stack(theirs)])
        return query @ keys.T / math.sqrt(query.shape[1])

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        assert mask is None
        query, own, other = q[row][head], k[row][head], row - image
        until = self.single if "single" in at.name else self.double
        a, value = matrix(query, own, None), v[row][head]
        if image > 0 and at.step <= until:
            theirs = [k[other][head][p] for p in at.picture]
            values = [v[other][head][p] for p in at.picture]
            gamma = self.found.get(image, 1.05) if self.gamma is None else self.gamma
            if at.step == self.auto.get("measured") and branch == "cond" and until == self.double:
                self.seen.setdefault(image, []).append((own, theirs, query, at))
            a = softmax(self.logits(gamma, own, theirs, query))
            value = torch.cat([value, torch.stack(values)])
        if image > 0 and branch == "cond" and self.blend - 2 <= at.step <= self.blend:
            for position in self.words[image]:
                column = a[:, at.text[position]][list(at.picture)]
                self.sums[image] = self.sums.get(image, 0) + column
        return a @ value

    def root(self, image):
        def over(gamma):
            own_sum = other_sum = 0.0
            for own, theirs, query, at in self.seen[image]:
                a = softmax(self.logits(gamma, own, theirs, query))[list(at.text)]
                own_sum += float(a[:, list(at.picture)].sum())
                other_sum += float(a[:, len(own) :].sum())
            return own_sum / other_sum - self.auto["ratio"]

        low, high = 1.0, 1.2
        assert over(low) < 0 < over(high), (over(low), over(high))
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if over(middle) < 0 else (low, middle)
        return low

    def inside(self, image):
        height, width = self.size
        cells = self.sums[image].reshape(height, width)

        def at(y, x):
            return float(cells[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])

        weights = {-1: 1, 0: 2, 1: 1}
        smooth = [
            [
                sum(at(y + b, x + c) * weights[b] * weights[c] for b in weights for c in weights)
                for x in range(width)
            ]
            for y in range(height)
        ]
        numbers = [number for line in smooth for number in line]

        def between(threshold):
            low = [number for number in numbers if number <= threshold]
            high = [number for number in numbers if number > threshold]
            if not high:
                return 0.0
            away = sum(low) / len(low) - sum(high) / len(high)
            return len(low) * len(high) * away**2

        threshold = max(numbers, key=between)
        return [[number > threshold for number in line] for line in smooth]

    def after(self, step, latents):
        if step + 1 == self.structure:
            s = self.sigmas(step + 1)
            picture = (latents[0] - s * self.noise[0]) / (1 - s)
            for image in range(1, len(latents)):
                latents[image] = (1 - s) * picture + s * self.noise[image]
        if step == self.auto.get("measured"):
            self.found = {image: self.root(image) for image in self.seen}
        if step == self.blend:
            height, width = self.size
            for image in self.words:
                inside = self.inside(image)
                rows, columns = latents.shape[2:] if latents.ndim == 4 else self.size
                for y in range(rows):
                    for x in range(columns):
                        cell = (y * width + x,) if latents.ndim == 3 else (..., y, x)
                        if not inside[y * height // rows][x * width // columns]:
                            latents[image][cell] = latents[0][cell]
