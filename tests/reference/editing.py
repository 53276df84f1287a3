"""Editing of attention in whole runs, written from the papers: slow oracles in float64.

``with written_out(pipe, method, ...)`` replaces every attention processor by explicit projections
and a loop over rows and heads. Rows of the batch: branch by branch ("uncond" before "cond" where
one call of the denoiser makes both; "cond" first where it is called twice a step), in each branch
all images. Every processor counts its own calls, from which the step follows.

s = q k^T / sqrt(d) + mask, A = softmax(s), O = A v, for one row and head.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.models.embeddings import apply_rotary_emb


@dataclass
class Place:
    """Where a processor is: ``kind`` "self", "cross" or "joint"; ``number`` counts its sort in the
    order of the model; positions of picture and text among queries and keys."""

    name: str
    kind: str
    number: int
    step: int
    total: int
    picture: range
    text: range
    grid: tuple[int, int]


def softmax(s):
    e = (s - s.max(1, keepdim=True).values).exp()
    return e / e.sum(1, keepdim=True)


def matrix(q, k, mask):
    s = q @ k.T / math.sqrt(q.shape[1])
    return softmax(s if mask is None else s + mask)


def positions(tokenizer, prompt, word, first=0):
    """Of the tokens of a word in a text that begins at ``first``."""
    begin = prompt.index(word)
    offsets = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    return [first + i for i, (a, b) in enumerate(offsets) if begin <= a < b <= begin + len(word)]


class Method:
    """The plain model; methods override what they change. ``image`` and ``branch`` are those of the
    row that is computed; ``q``, ``k``, ``v`` [row][head] are of all."""

    def key_input(self, at, image, branch, x):  # noqa: ARG002
        """What to_k reads instead of the picture ``x`` (position, channel)."""
        return x

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        return matrix(q[row][head], k[row][head], mask) @ v[row][head]


class HiddenKeys(Method):
    """Logits of some keys are minus infinity: those of the cells that ``inside`` (y, x, grid) names
    in attention of the picture, those of the text positions ``text`` of every image."""

    def __init__(self, inside=None, text=None, images=None, branches=("cond",)):
        self.inside, self.text, self.images, self.branches = inside, text, images, branches

    def hidden(self, at, image):
        height, width = at.grid
        keys = []
        if self.inside is not None and at.kind != "cross":
            cells = [(y, x) for y in range(height) for x in range(width)]
            keys += [at.picture[i] for i, (y, x) in enumerate(cells) if self.inside(y, x, at.grid)]
        if self.text is not None and at.kind != "self":
            keys += [at.text[p] for p in self.text[image]]
        return keys

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        if (self.images is not None and image not in self.images) or branch not in self.branches:
            return super().attend(at, image, branch, q, k, v, mask, row, head)
        s = q[row][head] @ k[row][head].T / math.sqrt(q[row][head].shape[1])
        s = s if mask is None else s + mask
        for key in self.hidden(at, image):
            s[:, key] = -math.inf
        return softmax(s) @ v[row][head]


class MaskedKeyInput(Method):
    """DesignEdit: k = to_k(x (1 - M)) in self-attention; queries and values of the unmasked x."""

    def __init__(self, share, images=None, branches=("cond",)):
        self.share, self.images, self.branches = share, images, branches

    def key_input(self, at, image, branch, x):
        edited = self.images is None or image in self.images
        if at.kind != "self" or not edited or branch not in self.branches:
            return x
        height, width = at.grid
        kept = [1 - self.share(y, x, at.grid) for y in range(height) for x in range(width)]
        return torch.stack([row * m for row, m in zip(x, kept, strict=True)])


class Weighted(Method):
    """Prompt-to-prompt's reweighting: A' = A c for the columns of words, not normalised again; with
    ``normalised`` the rows are divided by their new sum."""

    def __init__(self, factors, normalised=False, images=None, branches=("cond",)):
        self.factors, self.normalised = factors, normalised
        self.images, self.branches = images, branches

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        a = matrix(q[row][head], k[row][head], mask)
        edited = self.images is None or image in self.images
        if at.kind != "self" and edited and branch in self.branches:
            for position, factor in self.factors[image].items():
                if at.kind == "cross":
                    a[:, at.text[position]] *= factor
                else:  # the rows of the picture in joint attention
                    for query in at.picture:
                        a[query, at.text[position]] *= factor
            if self.normalised:
                a = a / a.sum(1, keepdim=True)
        return a @ v[row][head]


class Mutual(Method):
    """MasaCtrl: from a step and a layer on, self-attention reads keys and values of the source's
    row in the same branch. In joint attention those of the source's picture beside its own text."""

    def __init__(self, source, first_step, places):
        self.source, self.first_step, self.places = source, first_step, places

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        key, value = k[row][head], v[row][head]
        if at.step >= self.first_step and self.places(at):
            other = row - image + self.source
            if at.kind == "joint":
                key, value = key.clone(), value.clone()
                for position in at.picture:
                    key[position] = k[other][head][position]
                    value[position] = v[other][head][position]
            else:
                key, value = k[other][head], v[other][head]
        return matrix(q[row][head], key, mask) @ value


class Taken(Method):
    """``what`` ("q", "k", "v") of the source's picture in place of those of others where ``acts``,
    but at the cells that ``own`` (y, x, grid) names."""

    def __init__(self, what, source, acts, own=None):
        self.what, self.source, self.acts, self.own = what, source, acts, own

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        tensors = {"q": q[row][head], "k": k[row][head], "v": v[row][head]}
        if self.acts(at):
            other, width = row - image + self.source, at.grid[1]
            for name in self.what:
                tensors[name] = tensors[name].clone()
                for i, p in enumerate(at.picture):
                    if self.own is None or not self.own(i // width, i % width, at.grid):
                        tensors[name][p] = {"q": q, "k": k, "v": v}[name][other][head][p]
        return matrix(tensors["q"], tensors["k"], mask) @ tensors["v"]


class Replaced(Method):
    """Prompt-to-prompt: in the conditional branch A of the source times the values of the target:
    in cross-attention in the steps i < int(cross T) (the official table of T + 1 rows: the same for
    0.8 of 25 or 50 steps), in self-attention of at most ``cells`` queries in the steps
    i < int(among T). In joint attention (arXiv 2508.07519) queries and keys of the picture are the
    source's in the steps i < int(joint T)."""

    def __init__(self, source, cross, among, joint, cells, branches=("cond",)):
        self.source, self.cross, self.among, self.joint = source, cross, among, joint
        self.cells, self.branches = cells, branches

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        other, query, key = row - image + self.source, q[row][head], k[row][head]
        if branch not in self.branches:
            return matrix(query, key, mask) @ v[row][head]
        in_cross = at.kind == "cross" and at.step < int(self.cross * at.total)
        in_self = at.kind == "self" and at.step < int(self.among * at.total)
        if in_cross or (in_self and len(query) <= self.cells):
            query, key = q[other][head], k[other][head]
        elif at.kind == "joint" and at.step < int(self.joint * at.total):
            query, key = query.clone(), key.clone()
            for position in at.picture:
                query[position] = q[other][head][position]
                key[position] = k[other][head][position]
        return matrix(query, key, mask) @ v[row][head]


class Shared(Method):
    """StyleAligned: other images see the keys of the source's picture, times ``scale`` and with
    ``shift`` added to their logits, beside their own; queries and keys of their own picture have
    the mean and the deviation of the source's in every channel (divisor n - 1; 1e-5 is added to the
    variance). The source is left alone."""

    def __init__(self, source, scale, shift, normalise, acts):
        self.source, self.scale, self.shift = source, scale, shift
        self.normalise, self.acts = normalise, acts

    def like(self, x, y, places):
        x = x.clone()
        for channel in range(x.shape[1]):
            a = [float(x[p, channel]) for p in places]
            b = [float(y[p, channel]) for p in places]
            (mean, spread), (other, wanted) = self.moments(a), self.moments(b)
            for p, value in zip(places, a, strict=True):
                x[p, channel] = (value - mean) / spread * wanted + other
        return x

    def moments(self, values):
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
        return mean, math.sqrt(variance + 1e-5)

    def attend(self, at, image, branch, q, k, v, mask, row, head):  # noqa: ARG002
        query, key, value = q[row][head], k[row][head], v[row][head]
        if image == self.source or not self.acts(at):
            return matrix(query, key, mask) @ value
        other = row - image + self.source
        theirs = [k[other][head][p] * self.scale for p in at.picture]
        if self.normalise:
            query = self.like(query, q[other][head], at.picture)
            key = self.like(key, k[other][head], at.picture)
        more = torch.stack(theirs)
        s = query @ torch.cat([key, more]).T / math.sqrt(query.shape[1])
        s[:, len(key) :] += self.shift
        if mask is not None:
            s[:, : len(key)] += mask
        values = [v[other][head][p] for p in at.picture]
        return softmax(s) @ torch.cat([value, torch.stack(values)])


def of_each_word(tokenizer, prompt, length):
    """Positions of every word of a prompt, which are apart by spaces, and those of the beginning,
    the end and the padding of its text."""
    offsets = tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"]
    spaces = [i for i, letter in enumerate(prompt) if letter == " "]
    words = [[] for _ in range(len(spaces) + 1)]
    special = []
    for position, (a, b) in enumerate(offsets):
        if a == b:
            special.append(position)
        else:
            words[sum(space < b - 1 for space in spaces)].append(position)
    return words, special + list(range(len(offsets), length))


class Aligned(Method):
    """Prompt-to-prompt with words of different token counts: by image a table {target position:
    (positions of the source, share of their sum, steps)}; in these steps the column of the target
    position is that share of the sum of the columns of the source. Self-attention of at most
    ``cells`` queries is the source's in the steps i < int(among T)."""

    def __init__(self, source, tables, among=0.0, cells=0, branches=("cond",)):
        self.source, self.tables, self.branches = source, tables, branches
        self.among, self.cells = among, cells

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        own, other = matrix(q[row][head], k[row][head], mask), row - image + self.source
        edited = branch in self.branches and image in self.tables
        early = at.step < int(self.among * at.total)
        if edited and at.kind == "self" and early and len(own) <= self.cells:
            own = matrix(q[other][head], k[other][head], mask)
        if edited and at.kind == "cross":
            theirs = matrix(q[other][head], k[other][head], mask)
            for position, (columns, share, steps) in self.tables[image].items():
                if at.step < steps:
                    own[:, position] = sum(theirs[:, column] for column in columns) * share
        return own @ v[row][head]


@contextmanager
def written_out(pipe, method, *, images, total, branches, grids, texts=0, picture_first=True):
    """``branches``: those of every call of the denoiser in a step, as (("uncond", "cond"),) or
    (("cond",), ("uncond",)). ``grids``: (height, width) by the number of cells. ``texts``: how
    many positions of text a joint sequence has."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    modules = {
        name: module for name, module in denoiser.named_modules() if hasattr(module, "processor")
    }
    before = {name: module.processor for name, module in modules.items()}
    numbers = {}
    try:
        for name, module in modules.items():
            kind = _kind(type(denoiser).__name__, name)
            numbers[kind] = numbers.get(kind, -1) + 1
            module.processor = _Processor(
                method, (name, kind, numbers[kind]), images, total, branches, grids, texts,
                picture_first,
            )  # fmt: skip
        yield
    finally:
        for name, module in modules.items():
            module.processor = before[name]


def _kind(denoiser, name):
    if denoiser in ("SD3Transformer2DModel", "FluxTransformer2DModel"):
        return "self" if name.endswith("attn2") else "joint"
    return "cross" if name.endswith("attn2") else "self"


class _Processor:
    def __init__(self, method, named, images, total, branches, grids, texts, picture_first):
        self.method, self.named, self.images, self.total = method, named, images, total
        self.branches, self.grids, self.texts = branches, grids, texts
        self.picture_first, self.calls = picture_first, 0

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None,
        image_rotary_emb=None, **_,
    ):  # fmt: skip
        x, context = hidden_states, encoder_hidden_states
        step, call = divmod(self.calls, len(self.branches))
        self.calls += 1
        branches = [b for b in self.branches[call] for _ in range(self.images)]
        at = self._place(x, context, step)
        q, k, v = self._projected(attn, x, context, image_rotary_emb, at, branches)
        rows = []
        for row, branch in enumerate(branches):
            mask = None if attention_mask is None else attention_mask[row]
            heads = [
                self.method.attend(at, row % self.images, branch, q, k, v, mask, row, head)
                for head in range(len(q[row]))
            ]
            rows.append(torch.cat(heads, 1))
        return self._out(attn, torch.stack(rows), x, context)

    def _place(self, x, context, step):
        name, kind, number = self.named
        cells = x.shape[1] - (self.texts if kind == "joint" and context is None else 0)
        if kind == "joint":
            first = 0 if self.picture_first else self.texts
            picture = range(first, first + cells)
            text = range(cells, cells + self.texts) if self.picture_first else range(self.texts)
        else:
            picture, text = range(cells), range(0 if context is None else context.shape[1])
        return Place(name, kind, number, step, self.total, picture, text, self.grids[cells])

    def _projected(self, attn, x, context, rotary, at, branches):
        """q, k, v [row][head] (position, dim)."""
        if at.kind == "cross":
            source, seen = context, context
        else:
            source = x
            seen = torch.stack(
                [
                    self.method.key_input(at, row % self.images, branch, x[row])
                    for row, branch in enumerate(branches)
                ]
            )
        q, k, v = (
            self._split(attn, part) for part in (attn.to_q(x), attn.to_k(seen), attn.to_v(source))
        )
        q, k = self._normed(attn, "norm_q", q), self._normed(attn, "norm_k", k)
        if at.kind == "joint" and context is not None:
            added = [
                self._split(attn, project(context))
                for project in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            ]
            added[0] = self._normed(attn, "norm_added_q", added[0])
            added[1] = self._normed(attn, "norm_added_k", added[1])
            pairs = zip((q, k, v), added, strict=True)
            q, k, v = (torch.cat((a, b) if self.picture_first else (b, a), 2) for a, b in pairs)
        if rotary is not None:
            q, k = (apply_rotary_emb(part, rotary, sequence_dim=2) for part in (q, k))
        return q, k, v

    @staticmethod
    def _split(attn, part):
        return part.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    @staticmethod
    def _normed(attn, name, part):
        norm = getattr(attn, name, None)
        return part if norm is None else norm(part)

    def _out(self, attn, output, x, context):
        if self.named[1] != "joint":
            return attn.to_out[0](output)
        if context is None:
            return output if getattr(attn, "to_out", None) is None else attn.to_out[0](output)
        cells, texts = x.shape[1], context.shape[1]
        sizes = (cells, texts) if self.picture_first else (texts, cells)
        parts = output.split(sizes, 1)
        picture, text = parts if self.picture_first else parts[::-1]
        if not getattr(attn, "context_pre_only", False):
            text = attn.to_add_out(text)
        return attn.to_out[0](picture), text


class LocalBlended(Method):
    """LocalBlend, with a noun of their own in the images ``new``.

    ``words`` {image: (positions in the source, positions in the image)}, ``without``
    {image: positions in the source} of those that stay; ``sites`` have one grid. ``after`` is
    called with the latents [image channel height width] or [image cell channel] of every step;
    before ``first_step``, but in the first of all, those where what stays is above the threshold
    ``held`` are the source's."""

    def __init__(self, words, without, sites, first_step, threshold, held, size, new=()):
        self.words, self.without, self.sites = words, without, sites
        self.first_step, self.threshold, self.size = first_step, threshold, size
        self.held, self.new = held, new
        self.sums, self.grid = {}, None

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        a = matrix(q[row][head], k[row][head], mask)
        if at.name in self.sites and branch == "cond":
            self.grid = at.grid
            for target, both in self.words.items():
                for place, who in enumerate((0, target)):
                    if image == who:
                        self.add((target, place), a, at, both[place])
            for target, positions in self.without.items():
                if image == 0:
                    self.add((target, "rest"), a, at, positions)
        return a @ v[row][head]

    def add(self, key, a, at, positions):
        for position in positions:
            column = a[:, at.text[position]][list(at.picture)]
            self.sums[key] = self.sums.get(key, 0) + column

    def cell(self, y, x):
        """That of the maps in which a cell of the latents lies."""
        height, width = self.grid
        return y * height // self.size[0], x * width // self.size[1]

    def pooled(self, key):
        least = int(key[0] in self.new and key[1] != "rest")
        return widest(self.sums[key].reshape(*self.grid), least)

    def inside(self, target, y, x):
        i, j = self.cell(y, x)
        for place in (0, 1):
            if (target, place) not in self.sums:
                continue
            pooled = self.pooled((target, place))
            if pooled[i][j] / max(map(max, pooled)) <= self.threshold:
                continue
            cells, rest = self.sums[target, place], self.sums[target, "rest"]
            at = i * self.grid[1] + j
            if cells[at] / cells.max() >= rest[at] / rest.max():
                return True
        return False

    def stays(self, target, y, x):
        i, j = self.cell(y, x)
        pooled = self.pooled((target, "rest"))
        return pooled[i][j] / max(map(max, pooled)) > self.held

    def after(self, step, latents):
        if step == 0:
            return
        for target in self.words:
            for y in range(self.size[0]):
                for x in range(self.size[1]):
                    if step < self.first_step:
                        kept = self.stays(target, y, x)
                    else:
                        kept = not self.inside(target, y, x)
                    if kept:
                        cell = (y * self.size[1] + x,) if latents.ndim == 3 else (..., y, x)
                        latents[target][cell] = latents[0][cell]


def widest(cells, least=0):
    """The largest cell that is at most a sixteenth of the shorter side away, or ``least`` cells,
    across or down."""
    height, width = cells.shape
    reach = max(min(height, width) // 16, least)
    return [
        [
            max(
                float(cells[b, c])
                for b in range(max(a - reach, 0), min(a + reach + 1, height))
                for c in range(max(d - reach, 0), min(d + reach + 1, width))
            )
            for d in range(width)
        ]
        for a in range(height)
    ]


def faded(mask, height, width):
    """The share [height width] of every pixel in a mask of cells, one cell wider and bilinear;
    of cells that are split where they are larger than a sixteenth of the shorter side."""
    parts = -(-16 // min(mask.shape))
    mask = torch.tensor(
        [[bool(mask[i // parts, j // parts]) for j in range(parts * mask.shape[1])]
         for i in range(parts * mask.shape[0])]
    )  # fmt: skip
    rows, columns = mask.shape
    wide = [
        [bool(mask[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].any()) for j in range(columns)]
        for i in range(rows)
    ]
    shares = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            down = min(max((y + 0.5) * rows / height - 0.5, 0.0), rows - 1.0)
            across = min(max((x + 0.5) * columns / width - 0.5, 0.0), columns - 1.0)
            i, j = int(down), int(across)
            for a, u in ((i, 1 - down + i), (min(i + 1, rows - 1), down - i)):
                for b, v in ((j, 1 - across + j), (min(j + 1, columns - 1), across - j)):
                    shares[y, x] += u * v * wide[a][b]
    return shares
