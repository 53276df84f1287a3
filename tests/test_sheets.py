"""Pictures of records: what they show, in pixels."""

import html
import io
import re
from base64 import b64decode

import numpy as np
import pytest
import torch
from PIL import Image

from attncontrol import AttentionMaps
from attncontrol.attention.sites import Site
from attncontrol.errors import RecordError, SettingError
from attncontrol.export.sheets import (
    animation,
    heads_sheet,
    over_layers,
    steps_sheet,
    write_pictures,
)
from attncontrol.inspector.page import page
from attncontrol.maps.draw import boxed, heat, overlay
from attncontrol.prompts.tokens import Span
from tests.kit import records


def made(values, *, steps=3, heads=2, pictures=True, height=4, width=6):
    """``values`` at the cell of the step (row 1), elsewhere 0; the second word everywhere 0.5."""
    cells = torch.zeros(1, 1, steps, heads, height, width, 2)
    for step in range(steps):
        cells[0, 0, step, :, 1, step, 0] = values
    cells[..., 1] = 0.5
    return AttentionMaps(
        layers={"a": cells, "b": cells[..., ::2, ::2, :] * 0},
        sites={n: Site(n, "cross", heads, 1) for n in "ab"},
        prompts=("a cat in the sky",), tokens=((),), branches=("cond",),
        spans=((Span("cat", (1,)), Span("sky", (2,))),),
        steps=tuple(range(steps)), timesteps=(900.0, 500.0, 100.0)[:steps],
        pictures=[Image.new("RGB", (96, 64), "black")] if pictures else (),
    )  # fmt: skip


@pytest.mark.parametrize("peak", [1e-4, 1.0, 8.0])
def test_any_range_of_values_fills_the_scale(peak):
    values = torch.zeros(4, 6)
    values[1, 2] = peak
    drawn = np.asarray(overlay(Image.new("RGB", (96, 64), "black"), values), dtype=int)
    row, column = np.unravel_index(drawn.sum(-1).argmax(), drawn.shape[:2])
    assert abs(row - 24) < 9  # the middle of cell (1, 2) of 16 px
    assert abs(column - 40) < 9
    brightest = 0.8 * heat(np.array(1.0)).astype(float)
    assert np.abs(drawn[row, column] - brightest).max() < 6


def test_equal_values_show_as_the_lowest():
    drawn = np.asarray(overlay(Image.new("RGB", (96, 64), "black"), torch.ones(4, 6)))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1


def test_boxes_are_drawn_at_their_edges():
    marked = boxed(
        Image.new("RGB", (64, 32), "white"),
        {"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.5, 1.0, 1.0)},
    )
    assert marked.size == (384, 192)
    red, blue = (0xD7, 0x19, 0x1C), (0x2C, 0x5F, 0xC3)
    assert [marked.getpixel(at) for at in ((1, 100), (100, 190), (190, 100))] == [red] * 3
    assert [marked.getpixel(at) for at in ((300, 97), (382, 150))] == [blue] * 2
    assert marked.getpixel((300, 50)) == marked.getpixel((100, 100)) == (255, 255, 255)


def test_the_mean_over_layers_keeps_the_steps():
    of_steps = over_layers(made(0.8), 0)
    assert of_steps.shape == (3, 4, 6, 2)
    assert of_steps[1, 1, 1, 0] == pytest.approx(0.4)  # the second layer is zero
    assert of_steps[1, 1, 2, 0] == 0


def test_the_animation_has_a_frame_per_step_on_one_scale():
    maps = made(0.8)
    maps.layers["a"][0, 0, 2] *= 0.5
    frames = [np.asarray(frame, dtype=int) for frame in animation(maps)]
    assert len(frames) == 3
    assert not np.array_equal(frames[0], frames[1])
    brightest = [(frame[..., 0] - frame[..., 2]).max() for frame in frames]  # yellow
    assert brightest[0] == brightest[1] > brightest[2]


def test_sheets_are_written_for_what_was_kept(tmp_path):
    names = {file.name for file in write_pictures(made(0.8), tmp_path / "all")}
    assert names == {"words.png", "steps.png", "steps.gif", "heads.cat.png", "heads.sky.png"}
    with Image.open(tmp_path / "all" / "steps.gif") as film:
        assert film.n_frames == 3
    reduced = made(0.8, heads=1, pictures=False)
    reduced = reduced.replace(
        sites={n: Site(n, "cross", 4, 1) for n in "ab"},
        layers={name: of.mean(2, keepdim=True) for name, of in reduced.layers.items()},
    )
    assert {file.name for file in write_pictures(reduced, tmp_path / "mean")} == {"words.png"}
    assert steps_sheet(made(0.8)).width > made(0.8).sheet().width
    assert heads_sheet(made(0.8), 0).height > 2 * 96


def pixels(png):
    with Image.open(io.BytesIO(png)) as shown:
        return np.asarray(shown.convert("RGB"))


def test_notebooks_show_the_words():
    maps = made(0.8)
    expected = np.asarray(maps.sheet())
    assert np.array_equal(pixels(maps._repr_png_()), expected)
    tile = np.asarray(
        overlay(maps.pictures[0], maps["cat"][0]).resize((192, 128), Image.Resampling.LANCZOS)
    )
    assert any(
        np.array_equal(expected[92:220, x : x + 192], tile) for x in range(expected.shape[1] - 191)
    )  # second of three
    source, text = re.fullmatch(
        r'<img src="data:image/png;base64,(.*)"><pre .*>(.*)</pre>', maps._repr_html_()
    ).groups()
    assert np.array_equal(pixels(b64decode(source)), expected)
    assert html.unescape(text) == repr(maps)
    assert AttentionMaps()._repr_png_() is AttentionMaps()._repr_html_() is None


def test_the_map_of_a_word_over_the_picture():
    maps = made(0.8)
    word = maps["cat"]
    drawn = np.asarray(maps.show("cat"))
    tile = np.asarray(
        overlay(maps.pictures[0], word[0]).resize((256, 171), Image.Resampling.LANCZOS)
    )
    assert any(
        np.array_equal(drawn[y : y + 171, -262:-6], tile) for y in range(30, drawn.shape[0] - 170)
    )
    two = maps.replace(
        layers={n: torch.cat([of, of]) for n, of in maps.layers.items()},
        prompts=("cat",) * 2, spans=maps.spans * 2,
        tokens=maps.tokens * 2, pictures=[*maps.pictures] * 2,
    )  # fmt: skip
    assert two.show("cat").width == maps.show("cat").width + 262
    fewer = two.replace(
        spans=(maps.spans[0], maps.spans[0][:1])
    )  # the second image has no second word
    assert fewer.sheet(0).width > fewer.sheet(1).width


def test_steps_that_did_not_run_draw_nothing(tmp_path):
    """The picture alone, and neither their mean nor the scale of the others is touched."""
    whole, gone = made(0.8), made(0.8)
    for of_layer in gone.layers.values():
        of_layer[:, :, 1] = torch.nan
    frames, expected = animation(gone), animation(whole)
    assert np.array_equal(np.asarray(frames[0]), np.asarray(expected[0]))
    assert np.asarray(frames[1])[60:200, 100:].min() == 0  # the black picture
    picture = Image.new("RGB", (96, 64), "red")
    assert overlay(picture, np.full((4, 6), np.nan)).getcolors() == [(96 * 64, (255, 0, 0))]
    torch.testing.assert_close(gone.mean()[..., 0], whole.replace(
        layers={n: of[:, :, [0, 2]] for n, of in whole.layers.items()}
    ).mean()[..., 0])  # fmt: skip
    assert len(write_pictures(gone, tmp_path)) == 5


def test_without_a_picture_there_is_no_tile_of_it():
    with_it, without = (
        made(0.8, pictures=kept).replace(prompts=("",)).sheet() for kept in (True, False)
    )
    white = [(np.asarray(sheet)[100:160] == 255).all((0, 2)) for sheet in (with_it, without)]
    tiles = [int((line[:-1] & ~line[1:]).sum()) for line in white]  # where a tile begins
    assert tiles == [3, 2]


def test_what_cannot_be_drawn_is_refused(tmp_path):
    maps = made(0.8).replace(direction="text->image")
    with pytest.raises(RecordError, match="not of text->image"):
        write_pictures(maps, tmp_path)
    with pytest.raises(RecordError, match="not of text->image"):
        maps.show("cat")
    assert maps._repr_png_() is None


@pytest.mark.usefixtures("as_users_have_it")
def test_images_and_pictures_that_cannot_be_drawn():
    maps = records.made({"a": torch.rand(1, 1, 1, 1, 2, 2, 3)})
    with pytest.raises(SettingError, match="image=5: the record has 1, numbered from 0"):
        maps.sheet(5)
    odd = {
        "are 1 PIL images, one for each prompt, not 1 of ndarray": [np.zeros((8, 8, 3))],
        "not 2 of Image": [Image.new("RGB", (8, 8))] * 2,
        "not 1 of int": 5,
        "not 1 of NoneType": None,
    }
    for said, pictures in odd.items():
        with pytest.raises(SettingError, match=said):
            maps.replace(pictures=pictures)
        with pytest.raises(SettingError, match=said):
            maps.pictures = pictures
    assert maps.pictures == ()


def test_a_page_says_at_its_top_that_the_record_is_partial():
    maps = records.made({"a": torch.rand(1, 1, 1, 1, 2, 2, 3)}).replace(partial="stopped <b>")
    top = page(maps).split("<main")[0]
    assert "This record is partial: stopped &lt;b&gt;." in top
