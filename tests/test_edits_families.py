"""Edits by places in attention calls of every architecture, against written-out ones: rows of
different lengths, masks, registers, reference pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from PIL import Image

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.edits import GRAG, TACA, BoundedAttention, DenseDiffusion
from attncontrol.errors import CouplingError
from attncontrol.families import qwenimage
from attncontrol.families.known import family_of
from attncontrol.verbs.edit import edit
from tests.kit.moments import output_of
from tests.kit.runs import ALL, PROMPTS, run
from tests.kit.zoo import flux
from tests.kit.zoo_chat import klein
from tests.reference import modulation
from tests.reference.editing import Place

NAMES = [
    "sdxl", "sd35", "flux", "pixart", "chroma", "auraflow", "hunyuandit", "sana", "qwenimage",
    "lumina2", "zimage", "klein", "hidream",
]  # fmt: skip
BOX = (0.25, 0.0, 0.5, 1.0)
RIGHT = (0.8, 0.0, 1.0, 1.0)


def in_box(_, x, grid):
    """The share of a cell; sides are multiples of 4 cells, or the box lies within cells."""
    left, right = grid[1] / 4, grid[1] / 2
    return max(0.0, min(x + 1, right) - max(x, left))


def in_half(_, x, grid):
    return in_box(_, x, grid) > 0.5


def at_right(_, x, grid):
    return x + 0.5 > 0.8 * grid[1]


def dense(now):
    texts = [[list(now.span("a", image).positions)] for image in range(2)]
    return modulation.Dense([in_half], texts, [0.9], 9)


def bounded(now):
    texts, ends = [], []
    for image in range(2):
        tokens, last = now.text.tokens(image), {}
        for position, token in enumerate(tokens):
            if not token.special:
                last[token.encoder] = position
        follow = [tokens[p + 1] for p in last.values() if p + 1 < len(tokens)]
        ends.append([token.index for token in follow if token.special])
        texts.append([list(now.span(word, image).positions) for word in ("a", 3)])
    return modulation.Bounded([in_half, at_right], texts, [[4], [4]], ends)


METHODS = [
    (TACA(1.3, first=1.0), ("joint",), lambda _: modulation.Tempered(1.3, 9)),
    (GRAG(1.2, 0.9, BOX), ("joint",), lambda _: modulation.Deviating(1.2, 0.9, in_box)),
    (BoundedAttention({"a": BOX, 3: RIGHT}, [4]), ("self", "cross", "joint"), bounded),
    (DenseDiffusion({"a": BOX}, first=1.0), ("self", "cross", "joint"), dense),
]


def place_of(call, now, row):
    layout = now.layout.rows([row])
    positions = range(call.key.shape[2])
    picture = range(call.query.shape[2])[layout.image_slice]
    text = [p for p in positions[layout.text] if call.site.kind != "joint" or p not in picture]
    when = now.step.index, now.step.total
    return Place(call.site.name, call.site.kind, 0, *when, picture, text, layout.grid)


def double(call):
    tensors = {name: getattr(call, name).double() for name in ("query", "key", "value")}
    if call.mask is not None and call.mask.dtype != torch.bool:
        tensors["mask"] = call.mask.double()
    return call.replace(**tensors)


def by_hand(call, now, oracle, place=place_of):
    """The output, row by row and head by head; heads that share keys are given them."""
    size = call.query.shape[1] // call.key.shape[1]
    key, value = (t.repeat_interleave(size, 1) for t in (call.key, call.value))
    mask = call.mask
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
        mask = mask.expand(*call.query.shape[:3], key.shape[2])
    rows = []
    for row in range(len(call.query)):
        at, image = place(call, now, row), now.image_of_row(row)
        branch = now.branches[row // len(now.images)]
        rows.append(
            torch.stack(
                [
                    oracle.attend(
                        at, image, branch, call.query, key, value,
                        None if mask is None else mask[row, head], row, head,
                    )
                    for head in range(call.query.shape[1])
                ]
            )
        )  # fmt: skip
    return torch.stack(rows)


@pytest.mark.parametrize("name", NAMES)
def test_edits_of_calls_equal_written_out_ones(name):
    pipe, compared = ALL[name](), set()

    def comparing(call, now):
        time = float(pipe.scheduler.timesteps[now.step.index])
        assert now.step.noise == pytest.approx(time / 1000)
        if now.step.index:
            return call
        now = replace(now, step=replace(now.step, noise=0.9))
        wide = double(call)
        plain = wide.kernel()
        for what, kinds, oracle in METHODS:
            if call.site.kind not in kinds:
                continue
            edited = output_of(what(wide, now))
            expected = by_hand(wide, now, oracle(now))
            torch.testing.assert_close(edited, expected, rtol=0, atol=1e-10)
            if "cond" in now.branches:
                assert (edited - plain).abs().max() > 1e-6
            compared.add(type(what))
        return call

    with edit(pipe, comparing, where=Where()):
        run(name, pipe, PROMPTS)
    assert len(compared) == (len(METHODS) if "joint" in kinds_of(pipe) else len(METHODS) - 2)


def kinds_of(pipe):
    family = family_of(pipe)
    return {site.kind for site in family.sites(family.denoiser(pipe))}


def test_modulated_logits_are_the_same_some_queries_at_a_time(monkeypatch):
    pipe, what = ALL["sd35"](), DenseDiffusion({"a": BOX})
    with edit(pipe, what):
        at_once = run("sd35", pipe, PROMPTS, steps=1)
        monkeypatch.setattr("attncontrol.edits._logits._MOST", 1)
        assert torch.equal(run("sd35", pipe, PROMPTS, steps=1), at_once)


def photo(width, height, seed):
    colours = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(colours)


def kontext():
    parts = flux().components
    parts = {name: part for name, part in parts.items() if part is not None}
    pipe = FluxKontextPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


SMALL = {"_auto_resize": False, "max_area": 64 * 96}
# pipeline, whose options it has, what it is given, and the grids of the references
EDITING = {
    "kontext": (kontext, "flux", {"image": photo(64, 32, 0)} | SMALL, [(2, 4)]),
    "klein": (klein, "klein", {"image": [photo(64, 96, 0), photo(96, 128, 1)]}, [(6, 4), (8, 6)]),
}


@pytest.mark.parametrize("model", EDITING)
def test_reference_pictures_are_known_and_their_keys_deviate(model):
    make, name, pictures, grids = EDITING[model]
    pipe, seen = make(), []
    oracle = modulation.Deviating(1.2, 0.9, in_box)

    def comparing(call, now):
        layout = now.layout
        seen.append([other.grid for other in layout.references])
        start, text = layout.image_slice.stop, range(layout.text.stop)
        for grid in seen[-1]:
            stop = start + grid[0] * grid[1]
            at = Place(call.site.name, "joint", 0, 0, 1, range(start, stop), text, grid)
            start = stop
        assert stop == call.key.shape[2]
        only = GRAG(1.2, 0.9, BOX, reference=len(seen[-1]) - 1)
        expected = by_hand(call, now, oracle, lambda *_: at)
        torch.testing.assert_close(output_of(only(call, now)), expected, rtol=0, atol=1e-10)
        with pytest.raises(CouplingError, match=rf"reference=2, but .* given {len(grids)} "):
            GRAG(1.2, reference=2)(call, now)
        return call

    plain = run(name, pipe, PROMPTS[0], steps=1, **pictures)
    with edit(pipe, comparing, where=Where(kind="joint")):
        run(name, pipe, PROMPTS[0], steps=1, **pictures)
    assert seen
    assert all(each == grids for each in seen)
    with edit(pipe, GRAG(1.2)):
        assert not torch.allclose(run(name, pipe, PROMPTS[0], steps=1, **pictures), plain)
    with edit(pipe, GRAG(1.0)):
        same = run(name, pipe, PROMPTS[0], steps=1, **pictures)
    torch.testing.assert_close(same, plain, rtol=0, atol=1e-10)


def test_references_of_qwen_image_edit_follow_the_picture():
    """As QwenImageEditPlusPipeline calls its transformer."""
    shapes = [[(1, 4, 6), (1, 2, 3), (1, 5, 2)]] * 2
    arguments = {"img_shapes": shapes, "encoder_hidden_states": torch.zeros(2, 7, 3)}
    layout = qwenimage.FAMILY.layout(None, arguments, Site("there", "joint", 2, 2))
    references = (Layout((2, 3), slice(31, 37)), Layout((5, 2), slice(37, 47)))
    assert layout == Layout((4, 6), slice(7, 31), slice(7), references=references)
    assert qwenimage.FAMILY.latents(None, arguments) == (slice(None), slice(24))
