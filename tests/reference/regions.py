"""Texts for regions of the picture in whole runs, by loops over cells: see ``editing``.

``with texts_after(pipe, name, texts)`` appends to the text of every row what the encoders make of
each of ``texts``. A text of Stable Diffusion has all its positions; others end with the token after
their last word, those of SD3 in CLIP and in T5.
"""

import functools
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from tests.reference.editing import Method, matrix


def read(pipe, name, text):
    """States [position dim]."""
    call = {"prompt": text, "device": "cpu", "num_images_per_prompt": 1}
    if name in ("sd", "sdxl", "sd3", "sd35", "pixart"):
        call["do_classifier_free_guidance"] = False
    if name not in ("sd", "sdxl"):
        call["max_sequence_length"] = 16
    if name in ("sdxl", "sd3", "sd35", "flux"):
        call["prompt_2"] = text
    if name in ("sd3", "sd35"):
        call["prompt_3"] = text
    states = pipe.encode_prompt(**call)[0][0]
    if name in ("sd", "sdxl"):
        return states
    last = {"sd3": "tokenizer_3", "sd35": "tokenizer_3", "flux": "tokenizer_2"}
    said = len(getattr(pipe, last.get(name, "tokenizer"))(text)["input_ids"])
    if name not in ("sd3", "sd35"):
        return states[:said]
    first = len(pipe.tokenizer(text)["input_ids"])
    length = pipe.tokenizer.model_max_length
    return torch.cat([states[:first], states[length : length + said]])


@contextmanager
def texts_after(pipe, name, texts):
    """Yields by text its positions, counted from the end of the prompt's."""
    states = [read(pipe, name, text) for text in texts]
    places, start = {}, 0
    for text, of_text in zip(texts, states, strict=True):
        places[text] = range(start, start + len(of_text))
        start += len(of_text)
    more = torch.cat(states)

    def append(_, args, kwargs):
        own = kwargs["encoder_hidden_states"]
        rows = more.expand(len(own), *more.shape)
        kwargs = kwargs | {"encoder_hidden_states": torch.cat([own, rows], 1)}
        if kwargs.get("encoder_attention_mask") is not None:
            kwargs["encoder_attention_mask"] = F.pad(
                kwargs["encoder_attention_mask"], (0, len(more)), value=1
            )
        if "txt_ids" in kwargs:
            kwargs["txt_ids"] = F.pad(kwargs["txt_ids"], (0, 0, 0, len(more)))
        return args, kwargs

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    hook = denoiser.register_forward_pre_hook(append, with_kwargs=True)
    try:
        yield places
    finally:
        hook.remove()


def of_box(left, top, right, bottom, fine=30):
    """How much of a cell a box covers, by counting points."""

    @functools.cache
    def share(y, x, grid):
        ys = [(y + (i + 0.5) / fine) / grid[0] for i in range(fine)]
        xs = [(x + (i + 0.5) / fine) / grid[1] for i in range(fine)]
        return sum(top < b < bottom for b in ys) * sum(left < a < right for a in xs) / fine**2

    return share


class Couples(Method):
    """Regions [(text, share(y, x, grid))] by branch; ``places`` by text, after ``prompt`` positions
    of the prompt; the first ``steps`` steps."""

    def __init__(self, places, prompt, regions, base, images, steps, separate=False, sites=None):
        self.places, self.prompt, self.regions, self.base = places, prompt, regions, base
        self.images, self.steps, self.separate, self.sites = images, steps, separate, sites

    def attend(self, at, image, branch, q, k, v, mask, row, head):
        query, key, value = q[row][head], k[row][head], v[row][head]
        if at.kind == "self" or not len(at.text):
            return matrix(query, key, mask) @ value
        on = image in self.images and at.step < self.steps
        on = on and (self.sites is None or self.sites(at))
        regions = self.regions[branch] if on else []
        self.at, self.bias = at, torch.zeros(len(query), len(key)) if mask is None else mask
        self.bias = self.bias.expand(len(query), len(key))
        if at.kind == "cross":
            return self.of_cells(regions, query, key, value)
        if not regions:  # what the further texts make of themselves has no effect
            return self.to(self.own() + list(at.picture), query, key, value)
        return self.of_positions(regions, query, key, value)

    def to(self, seen, query, key, value, i=slice(None)):
        """All queries, or those of ``i``, with the keys ``seen``."""
        return matrix(query[i], key[seen], self.bias[i][:, seen]) @ value[seen]

    def tokens(self, text):
        return [self.at.text[self.prompt + p] for p in self.places[text]]

    def own(self):
        return [self.at.text[p] for p in range(self.prompt)]

    def of_cells(self, regions, query, key, value):
        prompt = self.to(self.own(), query, key, value)
        of = {text: self.to(self.tokens(text), query, key, value) for text, _ in regions}
        rows = []
        for i in range(len(query)):
            y, x = divmod(i, self.at.grid[1])
            shares = [share(y, x, self.at.grid) for _, share in regions]
            out = prompt[i] * (1 - (1 - self.base) * min(1, sum(shares)))
            for (text, _), share in zip(regions, shares, strict=True):
                out = out + (1 - self.base) * share / max(1, sum(shares)) * of[text][i]
            rows.append(out)
        return torch.stack(rows)

    def of_positions(self, regions, query, key, value):
        at = self.at
        grid = [divmod(i, at.grid[1]) for i in range(len(at.picture))]
        of = {}  # by text its cells
        for text, share in regions:
            covers = [share(y, x, at.grid) >= 0.5 for y, x in grid]
            of.setdefault(text, set()).update(
                p for p, covered in zip(at.picture, covers, strict=True) if covered
            )
        of_token = {p: text for text in of for p in self.tokens(text)}
        hidden = {at.text[p] for p in range(self.prompt, len(at.text))}
        plain = [p for p in range(len(key)) if p not in hidden]
        rows = []
        for i in range(len(query)):
            texts = [text for text in of if i in of[text]]
            if i in of_token:
                text = of_token[i]
                seen = sorted(of[text]) + self.tokens(text)
            elif texts:
                seen = [p for p in at.picture if not self.separate or self.together(i, p, of)]
                seen += [p for text in texts for p in self.tokens(text)]
            else:
                seen = [
                    p
                    for p in plain
                    if not (self.separate and regions and i in at.picture and p in at.picture)
                    or not any(p in cells for cells in of.values())
                ]
            (out,) = self.to(seen, query, key, value, slice(i, i + 1))
            if texts:
                (whole,) = self.to(plain, query, key, value, slice(i, i + 1))
                out = (1 - self.base) * out + self.base * whole
            rows.append(out)
        return torch.stack(rows)

    def together(self, i, p, of):
        return any(i in cells and p in cells for cells in of.values())
