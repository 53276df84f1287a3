"""Edits that read or change the cells of a video: frame by frame, whatever axis frames, channels
and cells have in the latents of the pipeline."""

import math

import pytest
import torch
from diffusers import LTXImageToVideoPipeline

from attncontrol import edit, keep
from attncontrol.attention.layout import Layout
from attncontrol.attention.regions import onto, softly
from attncontrol.edits import LocalBlend, Move, MutualAttention, Within
from attncontrol.errors import EditError
from attncontrol.verbs.places import On
from tests.kit.known import ALL as KNOWN
from tests.kit.known import Tiny
from tests.kit.runs import ALL, run, stepped
from tests.kit.zoo_newer import photo
from tests.kit.zoo_pictures import ltx_picture
from tests.reference.loops import Softmax

PROMPTS = ["a red cat and a turtle", "a red dog and a turtle"]
WORD = 2  # the position of cat, and of dog
RIGHT = Within((0.5, 0.0, 1.0, 1.0))
# the axis across of latents of one picture that are a grid
ACROSS = {
    "kandinsky5": -2, "kandinsky5-video": -2, "kandinsky5-picture": -2, "sana-video": -1,
    "wan": -1, "cogvideox": -1, "anyflow": -1,
}  # fmt: skip


def made(name):
    """A pipeline, and a run of it."""
    if name == "ltx-picture":
        pipe = ltx_picture()
        assert isinstance(pipe, LTXImageToVideoPipeline)
        return pipe, lambda **more: run("ltx", pipe, PROMPTS, image=photo(96, 64, 0), **more)
    if name in KNOWN:
        tiny = Tiny(name)
        return tiny.pipe, lambda **more: tiny.run(PROMPTS, **more)
    pipe = ALL[name]()
    return pipe, lambda **more: run(name, pipe, PROMPTS, **more)


def left(latents, name):
    """The left half of the cells of one picture, of those of the pipeline."""
    if name == "ltx":
        return latents.view(3, 4, 6, -1)[:, :, :3]
    return latents.narrow(ACROSS[name], 0, latents.shape[ACROSS[name]] // 2)


@pytest.mark.parametrize("name", [*ACROSS, "ltx"])
def test_a_region_lies_in_every_frame(name):
    pipe, run_it = made(name)

    def by_hand(_, latents):
        left(latents[1], name).copy_(left(latents[0], name))

    with stepped(pipe.scheduler, by_hand):
        expected = run_it()
    with edit(pipe, RIGHT):
        found = run_it()
    assert torch.equal(found, expected)
    assert (found - run_it()).abs().max() > 1e-3


def widest(cells, reach):
    """The largest of the cells [frame height width] around each, in its frame."""
    frames, height, width = cells.shape
    found = torch.empty_like(cells)
    for f, y, x in torch.cartesian_prod(*map(torch.arange, (frames, height, width))).tolist():
        rows, columns = (slice(max(k - reach, 0), k + reach + 1) for k in (y, x))
        found[f, y, x] = cells[f, rows, columns].max()
    return found


# queries and keys of attention to the text, its first row that is conditional and how many such
# calls a step has, where the cells begin, the grid, and how latents have a mask
BLENDS = {
    "wan": (48, 16, 0, 2, 0, (2, 4, 6), lambda m: finer(m)[None]),
    "cogvideox": (88, 88, 2, 2, 16, (3, 4, 6), lambda m: finer(m)[:, None]),
    "ltx": (72, 16, 2, 2, 0, (3, 4, 6), lambda m: m.reshape(-1, 1)),
    "ltx-picture": (72, 16, 2, 2, 0, (3, 4, 6), lambda m: m[None, 1:]),
}


def finer(mask):
    return mask.repeat_interleave(2, 1).repeat_interleave(2, 2)


@pytest.mark.parametrize("name", BLENDS)
def test_blends_go_by_the_maps_of_every_frame(name, monkeypatch):
    """A sum over steps, compared with the largest value of the whole video; a new noun reaches a
    cell further."""
    queries, keys, row, calls, first, grid, placed = BLENDS[name]
    pipe, run_it = made(name)
    with edit(pipe, LocalBlend(["cat", "dog"], (), start=0.0, threshold=0.95)):
        found = run_it(steps=3)
    plain = run_it(steps=3)
    softmax, sums, shares = Softmax(monkeypatch), torch.zeros(2, *grid), []

    def by_hand(_, latents):
        seen = [p for p in softmax.seen if tuple(p.shape[2:]) == (queries, keys)][:calls]
        softmax.seen.clear()
        cells = [p[row : row + 2, :, first:, WORD].mean(1).unflatten(1, grid) for p in seen]
        sums.add_(torch.stack(cells).mean(0))
        mask = torch.zeros(grid, dtype=torch.bool)
        for of_image in sums:
            reached = widest(of_image, 1)
            mask |= reached > 0.95 * reached.max()
        shares.append(mask.double().mean())
        latents[1] = torch.where(placed(mask), latents[1], latents[0])

    with stepped(pipe.scheduler, by_hand):
        expected = run_it(steps=3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert all(0.05 < share < 0.95 for share in shares)
    assert torch.equal(found[0], plain[0])
    assert (found[1] - plain[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_kept_maps_and_decoded_frames_are_those_of_a_batch(name):
    shape = {"wan": (1, 4, 2, 8, 12), "ltx": (1, 72, 4)}[name]
    first = torch.randn(shape, generator=torch.Generator().manual_seed(3)).double()
    pipe, options = ALL[name](), {"steps": 3, "output_type": "pt"}

    def edits(source):
        blend = LocalBlend(["cat", "dog"], source=source, start=0.0, threshold=0.7)
        words = MutualAttention(start=0.0, words=("cat", "dog"), source=source)
        return [On(blend), On(words)]

    both = first.expand(2, *[-1] * (first.ndim - 1)).contiguous()
    with edit(pipe, edits(0)):
        expected = run(name, pipe, PROMPTS, latents=both, **options)
    with keep(pipe, edits(0)) as source:
        alone = run(name, pipe, PROMPTS[0], latents=first, **options)
    with edit(pipe, edits(source)):
        found = run(name, pipe, PROMPTS[1], latents=first, **options)
    torch.testing.assert_close(alone[0], expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[0], expected[1], rtol=0, atol=1e-6)
    same = (expected[0] == expected[1]).double().mean()
    assert 0.01 < same < 0.99


def test_objects_move_in_every_frame_of_packed_latents():
    pipe = ALL["ltx"]()
    with edit(pipe, Move((0.0, 0.0, 0.5, 1.0), by=(0.5, 0.0))):
        found = run("ltx", pipe, PROMPTS, seed=[0, 0])
    changed = (found[0] != found[1]).any(-1).view(3, 4, 6)
    assert changed.any((1, 2)).all()


@pytest.mark.parametrize(("frames", "pictures"), [(1, 1), (2, 5), (3, 9), (4, 25), (6, 31)])
def test_decoded_frames_are_in_the_masks_around_them(frames, pictures):
    """A frame of the latents is a whole number of pictures, but for the first."""
    mask = torch.eye(frames, dtype=torch.bool)[:, None, :, None].expand(-1, 2, -1, 2).flatten(2)
    share = softly(mask, torch.zeros(3, pictures, 16, 16 * frames, dtype=torch.float64))
    assert share.shape == (pictures, 16, 16 * frames)
    each = [softly(of, torch.zeros(3, 16, 16 * frames, dtype=torch.float64)) for of in mask]
    size = (pictures - 1) // max(frames - 1, 1) or 1
    for k, found in enumerate(share):
        around = {k // size, min(math.ceil(k / size), frames - 1)}
        assert torch.equal(found, torch.stack([each[n] for n in around]).amax(0))


def test_pictures_among_the_latents_are_refused():
    with pytest.raises(EditError, match="96 cells, of which 72 are the video"):
        onto(torch.ones(4, 6, dtype=torch.bool), torch.zeros(1, 96, 4), Layout((3, 4, 6)))
    with pytest.raises(EditError, match="3 frames, of which 2 are the video"):
        onto(torch.ones(2, 4, 6, dtype=torch.bool), torch.zeros(1, 4, 3, 8, 12), Layout((3, 8, 12)))
    given = Layout((4, 8, 12), references=(Layout((4, 6)),) * 2)
    with pytest.raises(EditError, match="4 frames, of which 2 are the video"):
        onto(torch.ones(2, 4, 6, dtype=torch.bool), torch.zeros(1, 4, 4, 8, 12), given)


def test_a_word_is_not_blended_where_as_many_pictures_as_frames_are_given(monkeypatch):
    tiny = Tiny("wan-vace")
    for place, value in tiny.known.patches:
        monkeypatch.setattr(place, value, raising=False)
    given = {"reference_images": [[photo(96, 64, 0), photo(96, 64, 1)]]}
    with keep(tiny.pipe, LocalBlend()) as source:
        tiny.run(PROMPTS[0], **given)
    with (
        pytest.raises(EditError, match="4 frames, of which 2 are the video"),
        edit(tiny.pipe, LocalBlend(source=source)),
    ):
        tiny.run(PROMPTS[1], **given)
