"""The ground-truth scorer with its shipped weights on scenes that it was not trained on."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from attncontrol.errors import SettingError
from attncontrol.sprites.scenes import COLORS, NOUNS, SIZE, Thing, compose, render
from attncontrol.sprites.scorer import Detection, detect, shows
from attncontrol.sprites.training.train_scorer import IGNORED, evaluate, labels

HELD_OUT = 77


def _single(noun: str, color: str | None) -> tuple[np.ndarray, np.ndarray]:
    picture, masks = render(compose((Thing(noun, color),), np.random.default_rng(HELD_OUT)))
    return picture, masks[0]


def test_held_out_scenes() -> None:
    figures = evaluate(100, HELD_OUT)
    assert figures["recall"] >= 0.98
    assert figures["precision"] >= 0.98
    assert figures["color"] >= 0.97
    assert figures["iou"] > 0.8


def test_empty_backgrounds_show_nothing() -> None:
    scene = compose((Thing("cat"),), np.random.default_rng(HELD_OUT))
    grounds = [(tone, texture) for tone in range(6) for texture in range(4)]
    empty = [render(replace(scene, shown=(None,), background=ground))[0] for ground in grounds]
    assert detect(empty) == [()] * len(empty)


@pytest.mark.parametrize("noun", NOUNS)
def test_single_sprite_is_found_where_it_is(noun: str) -> None:
    picture, mask = _single(noun, "red")
    (detection,) = detect(picture[None])[0]
    assert (detection.noun, detection.color) == (noun, "red")
    assert (detection.mask & mask).sum() > 0.6 * (detection.mask | mask).sum()
    rows, columns = np.nonzero(mask)
    exact = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    np.testing.assert_allclose(detection.box, exact, atol=8)
    assert 0.5 < detection.confidence <= 1


@pytest.mark.parametrize("color", COLORS)
def test_every_color_is_told(color: str) -> None:
    picture, _ = _single("car", color)
    assert [f.color for f in detect(picture[None])[0]] == [color]


def test_larger_canvas() -> None:
    picture, mask = _single("turtle", "blue")
    below, right, odd = 64, 136, 8
    size = ((0, below), (0, right + odd), (0, 0))
    (detection,) = detect(np.pad(picture, size, mode="edge")[None])[0]
    assert detection.mask.shape == (SIZE + below, SIZE + right + odd)
    assert (detection.noun, detection.color) == ("turtle", "blue")
    padded = np.pad(mask, size[:2])
    assert (detection.mask & padded).sum() > 0.6 * (detection.mask | padded).sum()


def test_images_and_arrays_agree_in_any_batch() -> None:
    pictures = np.stack([_single(noun, None)[0] for noun in NOUNS * 2])
    found = detect(pictures)
    assert found == detect([Image.fromarray(p) for p in pictures])
    assert [[f.noun for f in fs] for fs in found] == [[noun] for noun in NOUNS * 2]


def test_no_pictures() -> None:
    assert detect([]) == []


@pytest.mark.parametrize("sizes", [[(128, 128), (64, 64)], [(100, 128)]])
def test_refuses_sizes_it_cannot_batch(sizes: list[tuple[int, int]]) -> None:
    with pytest.raises(SettingError, match="multiples of 8"):
        detect([Image.new("RGB", size) for size in sizes])


def test_shows_needs_the_color_only_where_it_is_named() -> None:
    detections = (Detection("cat", "red", (0, 0, 1, 1), np.ones((1, 1), dtype=bool), 1.0),)
    assert shows(detections, Thing("cat"))
    assert shows(detections, Thing("cat", "red"))
    assert not shows(detections, Thing("cat", "blue"))
    assert not shows(detections, Thing("dog"))


def test_labels_of_cells() -> None:
    scene = compose((Thing("cat", "green"), Thing("dog")), np.random.default_rng(HELD_OUT))
    masks = np.zeros((2, SIZE, SIZE), dtype=bool)
    masks[0, :4, :4] = masks[1, 4:8, :4] = True
    masks[0, 12:14, :4] = True  # half a cell is background
    nouns, colors = labels(scene, masks)
    assert nouns.shape == colors.shape == (32, 32)
    assert nouns[:2, 0].tolist() == [1 + NOUNS.index("cat"), 1 + NOUNS.index("dog")]
    assert (nouns > 0).sum() == 2
    assert colors[:2, 0].tolist() == [list(COLORS).index("green"), IGNORED]
