"""Remove and Move: whole runs against written-out loops over cells."""

from fractions import Fraction
from math import floor

import pytest
import torch

from attncontrol.attention.regions import grown
from attncontrol.edits import Move, Remove
from attncontrol.errors import SettingError
from attncontrol.verbs.edit import edit
from attncontrol.verbs.record import record
from tests.kit.runs import run, stepped
from tests.kit.zoo import flux, sd, sd3, sdxl
from tests.reference import editing as slow
from tests.reference.layers import Emptied

PROMPTS = ["a red cat and a frog", "a frog"]
TOTAL = 4
GRIDS = {96: (8, 12), 24: (4, 6), 6: (2, 3)}
BOX = (0.25, 0.0, 0.5, 0.5)
EARLY = {"masked": 0.5, "kept": 0.5}
# the model, branches by call of the denoiser, cells of the latents, the call
CALLS = {
    "sd": (sd, (("uncond", "cond"),), (8, 12), {"guidance_scale": 3.0}),
    "sd plain": (sd, (("cond",),), (8, 12), {"guidance_scale": 1.0}),
    "sd3": (sd3, (("uncond", "cond"),), (8, 12), {"guidance_scale": 3.0}),
    "flux": (
        flux, (("cond",), ("uncond",)), (4, 6),
        {"true_cfg_scale": 3.0, "negative_prompt": [""] * 2},
    ),
}  # fmt: skip


def overlap(box, cell, size):
    """How much of a cell a box covers."""
    share = 1
    for axis in (0, 1):
        low, high = (Fraction(cell[axis] + i, size[axis]) for i in (0, 1))
        start, stop = box[1 - axis], box[3 - axis]
        share *= max(min(high, stop) - max(low, start), 0) * size[axis]
    return float(share)


def larger(box, by):
    return tuple(min(max(side + (by if i > 1 else -by), 0), 1) for i, side in enumerate(box))


def before(cell, size, centre, by, scale, flip):
    """The cell that comes to lie in one, None outside of the picture."""
    found = []
    for axis in (0, 1):
        middle, shift = Fraction(centre[1 - axis]), by[1 - axis]
        away = (Fraction(2 * cell[axis] + 1, 2 * size[axis]) - shift - middle) / scale
        place = middle + (-away if flip and axis == 1 else away)
        found.append(floor(place * size[axis]))
    inside = all(0 <= number < of for number, of in zip(found, size, strict=True))
    return tuple(found) if inside else None


def moved(size, by=(0, 0), scale=1, flip=False):
    """What is pasted of the box."""

    def pasted(y, x):
        other = before((y, x), size, (Fraction(3, 8), Fraction(1, 4)), by, scale, flip)
        return other if other and overlap(BOX, other, size) > 0.5 else None

    return pasted


def emptied(size, **more):
    box = larger(BOX, 0.04)
    return Emptied(
        lambda y, x, grid: overlap(box, (y, x), grid),
        lambda y, x: overlap(box, (y, x), size) > 0.5, 2, 2, size, **more,
    )  # fmt: skip


def of_all(size, box, **shift):
    """The whole picture, which comes to lie in a box."""
    return Emptied(
        lambda y, x, grid: 1 - overlap(box, (y, x), grid),
        lambda y, x: overlap(box, (y, x), size) < 0.5, 2, 2, size,
        lambda y, x: before((y, x), size, (Fraction(1, 2),) * 2, **{"flip": False} | shift),
    )  # fmt: skip


THIRD = Fraction(1, 3)
METHODS = {
    "remove": (Remove(BOX, grow=0.04, **EARLY), emptied),
    "move": (
        Move(BOX, by=(1 / 3, 0.25), grow=0.04, **EARLY),
        lambda size: emptied(size, pasted=moved(size, (THIRD, Fraction(1, 4))), paste=2),
    ),
    "larger, flipped": (
        Move(BOX, (0.25, 0.25), 1.5, True, grow=0.04, **EARLY),
        lambda size: emptied(
            size, pasted=moved(size, (Fraction(1, 4),) * 2, Fraction(3, 2), True), paste=2
        ),
    ),
    "pan": (
        Move(by=(-1 / 3, 0.0), grow=0.04, **EARLY),
        lambda size: of_all(size, (0, 0, 2 / 3 - 0.04, 1), by=(-THIRD, 0), scale=1),
    ),
    "zoom": (
        Move(scale=0.5, grow=0.0, **EARLY),
        lambda size: of_all(size, (0.25, 0.25, 0.75, 0.75), by=(0, 0), scale=Fraction(1, 2)),
    ),
}
CASES = [(call, "move") for call in CALLS] + [
    ("sd", "remove"), ("flux", "larger, flipped"), ("flux", "pan"), ("sd3", "zoom"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "method"), CASES)
def test_layers_equal_written_out_loops(call, method):
    make, branches, size, arguments = CALLS[call]
    (what, oracle_of), pipe, name = METHODS[method], make(), call.split()[0]
    oracle = oracle_of(size)
    plain = run(name, pipe, PROMPTS, steps=TOTAL, **arguments)
    with slow.written_out(
        pipe, oracle, images=2, total=TOTAL, branches=branches, grids=GRIDS,
        texts={"sd3": 32 + 16, "flux": 16}.get(name, 0), picture_first=name != "flux",
    ), stepped(pipe.scheduler, oracle.after):  # fmt: skip
        expected = run(name, pipe, PROMPTS, steps=TOTAL, **arguments)
    with edit(pipe, what):
        edited = run(name, pipe, PROMPTS, steps=TOTAL, **arguments)
    largest = plain.abs().max()
    torch.testing.assert_close(edited / largest, expected / largest, rtol=0, atol=1e-12)
    assert torch.equal(edited[0], plain[0])
    assert ((edited - plain)[1:].flatten(1).abs().amax(1) / largest > 1e-4).all()


def test_what_is_outside_stays_and_what_moved_is_there_to_the_bit():
    pipe = sdxl()
    plain = run("sdxl", pipe, PROMPTS, steps=2)
    what = Move((0.0, 0.0, 0.5, 1.0), by=(0.5, 0.0), kept=1.0, grow=0.0)
    with edit(pipe, what), record(pipe, ["frog"]):
        both = run("sdxl", pipe, PROMPTS, steps=2)
    half = plain.shape[-1] // 2
    assert torch.equal(both[0], plain[0])
    assert torch.equal(both[1, ..., half:], plain[0, ..., :half])
    assert (both[1, ..., :half] - plain[0, ..., :half]).abs().min() > 0


def test_keys_may_be_hidden_wholly():
    pipe = sd()
    plain = run("sd", pipe, PROMPTS, steps=2)
    found = []
    for soft in (True, False):
        with edit(pipe, Remove(BOX, soft=soft)):
            found.append(run("sd", pipe, PROMPTS, steps=2))
        assert torch.equal(found[-1][0], plain[0])
    assert (found[0] - found[1])[1].abs().max() > 1e-4
    everywhere = Remove((0.0, 0.0, 1.0, 1.0), soft=False)
    with pytest.raises(SettingError, match="no key is left at "), edit(pipe, everywhere):
        run("sd", pipe, PROMPTS, steps=2)


def test_masks_grow_and_move_as_boxes_do():
    mask = torch.zeros(16, 24)
    mask[:8, 6:12] = 1
    assert torch.equal(grown(mask, 1 / 8).nonzero()[-1], torch.tensor([9, 14]))
    pipe, results = flux(), []
    for region in (BOX, mask, mask.bool()):
        with edit(pipe, Move(region, by=(0.5, 0.0), grow=0.0)):
            results.append(run("flux", pipe, PROMPTS))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-10)
    assert torch.equal(results[1], results[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Remove((0.5, 0.0, 0.4, 1.0)), "the box of the region must be"),
        (lambda: Remove(torch.zeros(2, 2)), "is empty"),
        (lambda: Remove(BOX, kept=2.0), r"Remove\.kept must be a share"),
        (lambda: Move(BOX), r"say what changes: by=\(0\.3, 0\.0\), scale=1\.5 or flip=True"),
        (lambda: Move(BOX, by=(0.8, 0.0)), r"by=\(0\.8, 0\.0\) leaves nothing of it in the"),
        (lambda: Move(by=(0.0, -1.0)), "leaves nothing"),
        (lambda: Move(BOX, scale=0.0), r"Move\.scale must be a number above 0"),
    ],
)
def test_settings_are_refused_when_they_are_made(make, message):
    with pytest.raises(SettingError, match=message):
        make()
