"""Word maps, their masks and overlaps: against slow restatements, by hand, and on degenerate
maps."""

import numpy as np
import pytest
import torch

from attncontrol import record
from attncontrol.analysis import aggregate, magnets, overlap, propagation, segment
from attncontrol.analysis.edges import along_edges
from attncontrol.attention.sites import Where
from attncontrol.errors import SiteError, WordError
from attncontrol.maps.functional import otsu
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.prompts.tokens import Span, Token
from tests.kit.records import maps_of
from tests.reference import analysis as reference


def of_image(maps, b, branch=0):
    return [of[b, branch].numpy() for of in maps.layers.values()]


@pytest.mark.parametrize("words", [None, [1, 2, 3]])
def test_daam(words):
    """The first and the last token are special."""
    maps = maps_of()
    for branch, name in enumerate(maps.branches):
        found = aggregate.daam(maps, name, normalise=words is not None)
        for b in range(2):
            np.testing.assert_allclose(
                found[b], reference.daam(of_image(maps, b, branch), words), rtol=0, atol=1e-12
            )
    one_hot = maps.replace(
        layers={k: (v == v.amax((4, 5), keepdim=True)).double() for k, v in maps.layers.items()}
    )
    assert aggregate.daam(one_hot).min() == 0  # bicubic undershoot is cut off
    assert aggregate.daam(maps, size=(5, 7)).shape == (2, 5, 7, 5)


def test_mean_per_resolution():
    maps = maps_of()
    found = aggregate.per_resolution(maps)
    for b in range(2):
        np.testing.assert_allclose(
            found[b], reference.per_resolution(of_image(maps, b)), rtol=0, atol=1e-12
        )
    one_grid = maps_of(grids=((4, 6), (4, 6)))
    torch.testing.assert_close(
        aggregate.per_resolution(one_grid, "uncond"), one_grid.mean("uncond")
    )


def test_steps_in_which_a_layer_did_not_run_do_not_count():
    maps = maps_of()
    layers = dict(maps.layers)
    first = next(iter(layers))
    gone = layers[first].clone()
    gone[:, :, 1] = torch.nan
    kept = [step for step in range(gone.shape[2]) if step != 1]
    filled = gone.clone()
    filled[:, :, 1] = gone[:, :, kept].mean(2)  # means over steps are as if it had been typical
    with_gaps, whole = (
        maps.replace(layers=layers | {first: gone}),
        maps.replace(layers=layers | {first: filled}),
    )
    for of in (aggregate.daam, aggregate.per_resolution, AttentionMaps.mean, magnets.mass):
        torch.testing.assert_close(of(with_gaps), of(whole))


def test_videos_keep_their_frames():
    maps = maps_of(batch=1)
    video = maps.replace(layers={k: torch.stack([v, 2 * v], 4) for k, v in maps.layers.items()})
    for of in (aggregate.daam, aggregate.per_resolution):
        plain, frames = of(maps), of(video)
        assert frames.shape == (1, 2, 4, 6, 5)
        torch.testing.assert_close(frames, torch.stack([plain, 2 * plain], 1))
    assert torch.allclose(
        aggregate.min_max(aggregate.daam(video)).amax((1, 2, 3)),
        torch.ones(1, 5, dtype=torch.float64),
    )


def test_word_pieces_by_hand():
    cell = torch.tensor([[[[0.1, 0.2, 0.3, 0.4]]]]).repeat(2, 1, 1, 1)
    positions = [[[1, 2], [3]], [[0, 3]]]
    expected = {"sum": [0.5, 0.4], "mean": [0.25, 0.4], "max": [0.3, 0.4], "first": [0.2, 0.4]}
    for how, values in expected.items():
        found = aggregate.merge(cell, positions, how)
        torch.testing.assert_close(found[0, 0, 0], torch.tensor(values))
        assert found[1, 0, 0, 1] == 0  # the second image has one word
    assert aggregate.merge(cell, [[], [[2]]]).flatten().tolist() == [0.0, pytest.approx(0.3)]
    assert aggregate.merge(cell, positions, "max")[1, 0, 0, 0] == pytest.approx(0.4)


def test_words_of_a_recording_of_all_tokens(pipe):
    def run(*words):
        with record(pipe, *words) as maps:
            pipe(["a cat and a turtle", "a turtle"], height=64, width=96,
                 num_inference_steps=2, output_type="latent",
                 generator=torch.Generator().manual_seed(0))  # fmt: skip
        return maps

    words = {"a cat and a turtle": ["cat", "turtle"], "a turtle": ["turtle"]}
    everything, named = run(), run(words)
    torch.testing.assert_close(
        aggregate.word_maps(everything, words), named.mean(), rtol=0, atol=1e-6
    )
    rest = aggregate.renormalised(everything.mean(), aggregate.without_special(everything))
    torch.testing.assert_close(rest.sum(-1), torch.ones(2, 8, 12))
    assert aggregate.without_special(everything)[0].nonzero()[:, 0].tolist() == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]  # turtle has two pieces
    assert aggregate.without_special(named).tolist() == [[True, True], [True, False]]
    with pytest.raises(WordError, match="in a recording of all tokens only"):
        aggregate.word_maps(named, words)
    with pytest.raises(WordError, match="'frog' is not in the prompt"):
        aggregate.word_maps(everything, ["frog"])


def test_display():
    maps = torch.tensor([[[[1.0, 0.0], [3.0, 0.0]]], [[[2.0, 2.0], [2.0, 6.0]]]])
    assert aggregate.min_max(maps)[..., 0].tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]
    assert aggregate.min_max(maps)[..., 1].tolist() == [[[0.0, 0.0]], [[0.0, 1.0]]]
    assert aggregate.shared_maximum(maps)[1, 0].tolist() == [
        [pytest.approx(1 / 3)] * 2,
        [pytest.approx(1 / 3), 1.0],
    ]
    assert aggregate.share(maps)[..., 0].tolist() == [[[0.25, 0.75]], [[0.5, 0.5]]]
    assert aggregate.share(maps)[0, ..., 1].abs().max() == 0
    kept = torch.tensor([[True, False], [False, False]])
    assert aggregate.renormalised(maps, kept)[..., 0].tolist() == [[[1.0, 1.0]], [[0.0, 0.0]]]


def test_masks_by_hand():
    maps = torch.tensor([[[0.0, 1.0, 0.6]], [[0.5, 0.5, 0.5]], [[8.0, 0.0, 7.0]]])
    assert segment.above(maps).int().tolist() == [[[0, 1, 1]], [[0, 0, 0]], [[1, 0, 1]]]
    assert segment.above(maps, 0.9).int().tolist() == [[[0, 1, 0]], [[0, 0, 0]], [[1, 0, 0]]]
    assert segment.strongest(maps).int().tolist() == [[[0, 1, 0]], [[0, 0, 0]], [[1, 0, 1]]]
    assert segment.strongest(maps, background=0.9).int().tolist() == [
        [[0, 1, 0]],
        [[0, 0, 0]],
        [[1, 0, 0]],
    ]
    picture = np.zeros((2, 6, 3), np.uint8)
    seen = []

    def refine(shown, mask):
        seen.append((shown.shape, mask.dtype, int(mask.sum())))
        return ~mask

    plain = segment.masks(maps, picture)
    assert plain.shape == (3, 2, 6)
    assert torch.equal(segment.masks(maps, picture, refine=refine), ~plain)
    assert seen == [((2, 6, 3), np.dtype(bool), int(mask.sum())) for mask in plain]
    assert torch.equal(
        segment.masks(maps, np.zeros((1, 3, 3), np.uint8), method=segment.above),
        segment.above(maps),
    )


def test_scores_by_hand():
    truth = torch.tensor([[True, True, False, False]])
    word = torch.tensor([[0.9, 0.2, 0.4, 0.1]])
    assert segment.iou(word > 0.3, truth) == pytest.approx(1 / 3)
    assert segment.iou(truth & False, truth & False) == 0
    assert segment.average_precision(word, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (
        segment.average_precision(torch.ones(1, 4), truth) == 0.5
    )  # equal values: the share of what is true
    assert segment.average_precision(word, truth & False) == 0
    assert segment.pointing(word, truth)
    assert not segment.pointing(word.flip(1), truth)
    assert segment.inside(word, truth) == pytest.approx(1.1 / 1.6)
    assert segment.inside(0 * word, truth) == 0
    perfect = segment.two_class(torch.tensor([[1.0, 0.0]]), truth)
    assert (perfect.accuracy, perfect.miou, perfect.ap) == (1.0, 1.0, 1.0)
    found = segment.two_class(word, truth)  # M > 0.4: one of two pixels, nothing wrong
    assert (found.accuracy, found.miou) == (pytest.approx(0.75), pytest.approx((1 / 2 + 2 / 3) / 2))


@pytest.mark.parametrize("kind", ["random", "coarse", "zeros", "one-hot"])
def test_scores_against_the_restatement(kind):
    rng = np.random.default_rng(3)
    words = {
        "random": rng.random((7, 5)),
        "coarse": rng.integers(0, 4, (7, 5)).astype(float),
        "zeros": np.zeros((7, 5)),
    }
    words["one-hot"] = (words["random"] == words["random"].max()).astype(float)
    for shape in ((7, 5), (14, 20)):
        truth = rng.random(shape) < 0.3
        expected = reference.two_class(words[kind], truth)
        found = segment.two_class(torch.from_numpy(words[kind]), torch.from_numpy(truth))
        np.testing.assert_allclose(
            (found.accuracy, found.miou, found.ap), expected, rtol=0, atol=1e-12
        )
    truth = rng.random((7, 5)) < 0.5
    found = segment.average_precision(torch.from_numpy(words[kind]), torch.from_numpy(truth))
    assert found == pytest.approx(reference.average_precision(words[kind], truth), abs=1e-12)


def test_overlaps():
    maps = maps_of(batch=1).mean()[0].permute(2, 0, 1)
    for measure, slow in (
        (overlap.cosine, reference.cosine),
        (overlap.symmetric_kl, reference.symmetric_kl),
    ):
        expected = [[slow(a.numpy(), b.numpy()) for b in maps] for a in maps]
        np.testing.assert_allclose(measure(maps), expected, rtol=0, atol=1e-12)
    masks = otsu(maps)
    expected = [[segment.iou(a, b) for b in masks] for a in masks]
    np.testing.assert_allclose(overlap.iou(maps), expected, rtol=0, atol=1e-7)
    apart = torch.eye(4).unflatten(1, (2, 2))
    torch.testing.assert_close(overlap.cosine(apart), torch.eye(4))
    torch.testing.assert_close(overlap.iou(apart), torch.eye(4))
    assert overlap.symmetric_kl(apart).diagonal().abs().max() < 1e-6
    assert overlap.cosine(0 * apart).abs().max() == 0
    assert overlap.symmetric_kl(0 * apart).isfinite().all()


def test_agreement_by_hand():
    maps = maps_of(batch=1, steps=1, heads=1, grids=((1, 2),), tokens=9)
    prompt, ends = (
        "a red cat and a frog",
        [(0, 0), (0, 1), (2, 5), (6, 9), (10, 13), (14, 15), (16, 18), (18, 20), (0, 0)],
    )
    row = tuple(Token(i, i, f"t{i}", *end, special=end == (0, 0)) for i, end in enumerate(ends))
    layer = torch.zeros(1, 1, 1, 1, 1, 2, 9, dtype=torch.float64)
    layer[..., 2] = torch.tensor([3.0, 4.0])  # red
    layer[..., 3] = torch.tensor([1.0, 0.0])  # cat
    layer[..., 6] = torch.tensor([0.0, 1.0])  # frog, in two pieces
    layer[..., 7] = torch.tensor([0.0, 1.0])
    spans = tuple(Span(token.text, (token.index,)) for token in row)
    new = {
        "layers": {"l": layer},
        "prompts": (prompt,),
        "tokens": (row,),
        "spans": (spans,),
        "branches": ("cond",),
    }
    ((found,),) = overlap.agreement(maps.replace(**new))
    assert vars(found) == {
        "modifier": "red",
        "noun": "cat",
        "own": pytest.approx(0.6),
        "other": pytest.approx(0.8),
    }
    alone = maps.replace(**new | {"prompts": ("a red cat",)})
    ((found,),) = overlap.agreement(alone)
    assert (found.own, found.other) == (pytest.approx(0.6), None)
    with pytest.raises(WordError, match="in a recording of all tokens only"):
        overlap.agreement(maps.replace(**new | {"spans": (spans[:2],)}))


@pytest.mark.parametrize("how", ["gather", "spread", "symmetric"])
def test_propagation(how):
    generator = torch.Generator().manual_seed(1)
    words = torch.rand(3, 2, 3, generator=generator, dtype=torch.float64)
    among = torch.rand(2, 3, 2, 3, generator=generator, dtype=torch.float64)
    found = propagation.propagate(words, among, 3, how)
    for word, expected in zip(words.numpy(), found, strict=True):
        np.testing.assert_allclose(
            expected, reference.propagate(word, among.numpy(), 3, how), rtol=0, atol=1e-12
        )
    itself = torch.eye(6, dtype=torch.float64).reshape(2, 3, 2, 3)
    torch.testing.assert_close(propagation.propagate(words, itself, 2, how), words)
    assert torch.equal(propagation.propagate(words, among, 0, how), words)
    if how == "gather":
        torch.testing.assert_close(
            propagation.propagate(torch.ones_like(words), among, 4), torch.ones_like(words)
        )
    if how == "spread":
        torch.testing.assert_close(found.sum((1, 2)), words.sum((1, 2)))


def test_maps_along_the_edges_of_a_picture():
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    words = torch.from_numpy(rng.random((2, 2, 3)))
    found = along_edges(words, picture, radius=2 / 3, epsilon=0.01)
    for word, expected in zip(words.numpy(), found, strict=True):
        wide = reference.upscaled(word, 6, 9, reference.linear, 1)
        np.testing.assert_allclose(
            expected, reference.guided(wide, picture, 2, 0.01), rtol=0, atol=1e-12
        )
    square = np.full((32, 32, 3), 200, np.uint8)
    square[10:21, 10:21] = (20, 120, 40)
    coarse = torch.zeros(1, 4, 4)
    coarse[:, 1:3, 1:3] = 1.0
    sharp = along_edges(coarse, square)[0]
    assert sharp.dtype == torch.float32
    assert sharp[10:21, 10:21].min() > 2 * sharp[square[..., 0] == 200].max()
    torch.testing.assert_close(
        along_edges(torch.full((1, 4, 4), 0.3), square), torch.full((1, 32, 32), 0.3)
    )


def test_what_lies_above_the_mean():
    maps = torch.tensor([[[1.0, 2.0, 6.0]], [[4.0, 4.0, 4.0]]])
    assert propagation.foreground(maps).tolist() == [[[0, 0, 3]], [[0, 0, 0]]]
    deviation = (14 / 3) ** 0.5
    above = torch.tensor([[[0.0, 0.0, 3 - 0.5 * deviation]], [[0.0, 0.0, 0.0]]])
    torch.testing.assert_close(propagation.foreground(maps, 0.5), above)


def test_propagation_of_recordings(pipe):
    call = {"height": 64, "width": 96, "num_inference_steps": 1, "output_type": "latent"}
    with (
        record(pipe, ["cat"]) as words,
        record(pipe, direction="image->image", where=Where(kind="self")) as cells,
    ):
        pipe(["a cat", "a red cat"], generator=torch.Generator().manual_seed(0), **call)
    means = words.mean()
    found = propagation.propagated(means[1].permute(2, 0, 1), cells, 1, times=2)
    fine = [of[1, 0, 0, 0] for of in cells.layers.values() if of.shape[-1] == 96]
    step = (sum(fine) / len(fine)).flatten(0, 1)
    torch.testing.assert_close(
        found[0].flatten(), step @ step @ means[1, ..., 0].flatten(), rtol=0, atol=1e-6
    )
    assert propagation.propagated(means[0].permute(2, 0, 1), cells, most=24).shape == (1, 4, 6)
    with pytest.raises(SiteError, match="no layer has attention among at most 5 cells"):
        propagation.among_cells(cells, most=5)
