"""What the inspector's page holds: numbers, words, text, size. What it does in a browser:
test_inspector_browser."""

import base64
import json
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from attncontrol import AttentionMaps, save
from attncontrol.cli import app
from attncontrol.errors import (
    CouplingError,
    NonFiniteError,
    RecordError,
    SizeError,
    UnsupportedError,
)
from attncontrol.inspector import payload
from attncontrol.inspector.layers import groups, in_order, short_names
from attncontrol.inspector.page import content, page
from attncontrol.inspector.quantise import atlas
from attncontrol.inspector.wording import entities, segments, shown_words
from attncontrol.prompts.tokens import Span
from tests.kit.records import DOWN, MID, PROMPT, UP, made

LIMIT = 10**7
runner = CliRunner()


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def maps():
    """Two images, two branches, four steps, two or three heads, cells that are not square in
    number, three words."""
    return made(
        {
            MID: random(2, 2, 4, 3, 2, 3, 3),
            DOWN: random(2, 2, 4, 2, 4, 6, 3, seed=1),
            UP: random(2, 2, 4, 2, 4, 6, 3, seed=2),
        },
        branches=("cond", "uncond"),
    )


def decoded(stored):
    """[(maps [count height width], peaks [count])] of an atlas, read as its docstring says."""
    cells = np.frombuffer(zlib.decompress(base64.b64decode(stored["cells"])), np.uint8)
    peaks = np.frombuffer(base64.b64decode(stored["peaks"]), "<f4")
    found = []
    for (height, width), count in zip(stored["grids"], stored["counts"], strict=True):
        size = height * width * count
        runs = (
            np.cumsum(cells[:size].reshape(-1, stored["run"], height * width).astype(int), 1) % 256
        )
        m, cells, peaks = peaks[:count], cells[size:], peaks[count:]
        found.append((m[:, None, None] * (runs.reshape(count, height, width) / 255) ** 2, m))
    assert not len(cells)
    assert not len(peaks)
    return found


def assert_close(stored, expected):
    """Within the error that the page states: 0.4 % of the maximum of each map."""
    shown, m = stored
    expected = expected.reshape(shown.shape)
    assert (np.abs(shown - expected) <= 0.004 * m[:, None, None]).all()
    np.testing.assert_allclose(m, expected.max((1, 2)), rtol=1e-6)


def test_maps_come_back_within_the_stated_error():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 5, 7, 3)) ** 4, 1e-4 * rng.random((1, 5, 4, 4))
    one, two = decoded(atlas([first, second], run=5))
    assert_close(one, first)
    assert_close(two, second)


@pytest.mark.parametrize("value", [0.0, 1e-4, 1.0, 8.0, 1e-30])
def test_constant_maps_keep_their_value(value):
    ((shown, m),) = decoded(atlas([np.full((2, 4, 6), value, np.float32)]))
    np.testing.assert_allclose(shown, value, rtol=1e-6)
    np.testing.assert_allclose(m, value, rtol=1e-6)


def test_steps_that_a_layer_did_not_run_in_are_empty_and_in_no_mean():
    whole = {DOWN: random(1, 1, 3, 2, 4, 6, 3), UP: random(1, 1, 3, 2, 4, 6, 3, seed=1)}
    gone = {DOWN: whole[DOWN].clone(), UP: whole[UP]}
    gone[DOWN][:, :, 1] = torch.nan
    found = content(made(gone), "run", LIMIT)
    mean, step, head = (decoded(found[name]) for name in ("mean", "step", "head"))
    ran = whole[DOWN][:, :, [0, 2]]
    expected = (ran.mean((2, 3)) + whole[UP].mean((2, 3))) / 2
    assert_close(mean[0], expected.permute(0, 1, 4, 2, 3).numpy())
    assert_close(head[0], ran.mean(2).permute(0, 1, 2, 5, 3, 4).numpy())
    both, down = (step[k][0].reshape(3, 3, 4, 6) for k in (0, 1))  # word step height width
    assert (down[:, 1] == 0).all()
    np.testing.assert_allclose(
        both[:, 1], whole[UP].mean(3)[0, 0, 1].permute(2, 0, 1).numpy(), atol=4e-3
    )
    assert any("did not run in 1 of their steps" in line for line in found["reduced"])
    json.dumps(found, allow_nan=False)
    gone[DOWN][0, 0, 0, 0, 2, 3, 1] = torch.nan  # one cell is a fault, not a step left out
    with pytest.raises(NonFiniteError, match=f"{DOWN} holds NaN or infinite attention"):
        content(made(gone), "run", LIMIT)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_cannot_be_drawn_are_refused(value):
    with pytest.raises(NonFiniteError, match="NaN or infinite attention; it cannot be drawn"):
        atlas([np.full((1, 2, 2), value)])


def test_groups_steps_and_heads_are_means_of_the_record(maps):
    found = content(maps, "run", LIMIT)
    names = [group["name"] for group in found["groups"]]
    assert names == ["all layers", "4 \u00d7 6 cells", "down", "mid", "up 1"]
    assert [group["title"] for group in found["groups"]][2:] == [DOWN, MID, UP]
    mean, step, head = (decoded(found[name]) for name in ("mean", "step", "head"))
    for b, branch in enumerate(maps.branches):
        images = [mean[0][0].reshape(2, 2, 1, 3, 4, 6)[:, b, 0], mean[0][1].reshape(2, 2, 3)[:, b]]
        assert_close(
            (images[0].reshape(-1, 4, 6), images[1].ravel()),
            maps.mean(branch).permute(0, 3, 1, 2).numpy(),
        )
    both = (maps.layers[DOWN].mean(3) + maps.layers[UP].mean(3)) / 2
    assert_close(step[1], both.permute(0, 1, 5, 2, 3, 4).numpy())
    assert_close(step[3], maps.layers[MID].mean(3).permute(0, 1, 5, 2, 3, 4).numpy())
    assert [row["layer"] for row in found["heads"]] == [DOWN, MID, UP]
    for row, name in enumerate((DOWN, MID, UP)):
        assert_close(head[row], maps.layers[name].mean(2).permute(0, 1, 2, 5, 3, 4).numpy())


def test_what_the_page_says_about_axes(maps):
    found = content(maps, "run", LIMIT)
    assert found["aspect"] == 1.5
    assert found["branches"] == ["cond", "uncond"]
    assert found["steps"][1] == {"first": 1, "last": 1, "timestep": 999.0, "sigma": 1.0}
    assert found["steps"][0]["sigma"] is None  # infinite: JSON has no word for it
    assert found["images"][0]["words"] == ["cat", "frog", "red"]
    assert any("0.4 %" in line for line in found["reduced"])


def test_coarser_grids_are_means_of_areas_in_the_right_place():
    spot = torch.zeros(1, 1, 1, 1, 40, 80, 1)
    spot[..., 4, 60, 0] = 8.0
    found = content(made({DOWN: spot}, ["cat"]), "run", LIMIT)
    ((shown, m),) = decoded(found["mean"])
    assert shown.shape == (1, 32, 64)
    assert np.argwhere(shown[0] == shown.max()).tolist() == [[3, 48]]
    assert m[0] == pytest.approx(8.0 / 4)  # areas of two by two cells
    assert (
        "Means over steps: grids of at most 64 cells per side (recorded: 80)." in found["reduced"]
    )


def test_statistics_of_heads():
    """An even map and one cell of forty; zeros count as even."""
    even, one, zero = torch.full((5, 8), 0.3), torch.zeros(5, 8), torch.zeros(5, 8)
    one[1, 2] = 0.7
    found = payload.head_statistics(torch.stack([even, one, zero]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.1], [0.0, 1.0], [1.0, 0.1]]))
    half = torch.zeros(4, 4)
    half[:2] = 1.0
    torch.testing.assert_close(payload.head_statistics(half), torch.tensor([0.75, 2 / 8]))


def test_head_statistics_are_those_of_the_recorded_grid(maps):
    stats = np.frombuffer(base64.b64decode(content(maps, "run", LIMIT)["stats"]), "<f4")
    expected = [
        payload.head_statistics(maps.layers[name].mean(2).permute(0, 1, 2, 5, 3, 4)).flatten()
        for name in (DOWN, MID, UP)
    ]
    np.testing.assert_allclose(stats, torch.cat(expected).numpy(), rtol=1e-6)


def test_axes_that_were_not_kept_are_left_out_and_named():
    averaged = made({DOWN: random(1, 1, 1, 1, 4, 4, 3)}).replace(
        steps=(0, 1), timesteps=(9.0, 4.0), sigmas=(None, None)
    )
    found = content(averaged, "run", LIMIT)
    assert found["step"] is None
    assert found["head"] is None
    assert found["stats"] is None
    assert found["steps"] == []
    assert found["heads"] == []
    assert (
        "Means over steps and heads; record with keep=('step', 'head') to see them apart."
        in found["reduced"]
    )


def test_videos_have_frames():
    video = random(1, 1, 3, 2, 5, 4, 6, 3)
    found = content(made({DOWN: video}), "run", LIMIT)
    assert found["frames"] == 5
    assert_close(decoded(found["step"])[0], video.mean(3).permute(0, 1, 3, 6, 2, 4, 5).numpy())
    assert_close(decoded(found["head"])[0], video.mean((2, 4)).permute(0, 1, 2, 5, 3, 4).numpy())


def test_blocks_and_short_names_of_layers():
    flux = [f"transformer_blocks.{k}.attn" for k in range(2)] + [
        f"single_transformer_blocks.{k}.attn" for k in range(2)
    ]
    found = groups(dict.fromkeys(flux, (4, 4)))
    assert [(g.kind, g.name, len(g.layers)) for g in found] == [
        ("all", "all layers", 4), ("block", "double", 2), ("block", "single", 2),
        ("layer", "double 0", 1), ("layer", "double 1", 1),
        ("layer", "single 0", 1), ("layer", "single 1", 1),
    ]  # fmt: skip
    assert in_order([DOWN, UP, MID]) == (DOWN, MID, UP)
    assert in_order(reversed(flux)) == tuple(reversed(flux))
    assert short_names(("a.0.x", "a.0.y")) == {"a.0.x": "a.0.x", "a.0.y": "a.0.y"}
    sdxl = [
        f"down_blocks.1.attentions.{a}.transformer_blocks.{t}.attn2"
        for a in range(2)
        for t in range(2)
    ]
    assert list(short_names(tuple(sdxl)).values()) == [
        "down 1.0.0",
        "down 1.0.1",
        "down 1.1.0",
        "down 1.1.1",
    ]


def test_words_of_the_prompt_and_pieces_of_it():
    words = shown_words(
        made({DOWN: random(1, 1, 1, 1, 2, 2, 3)}, ["red cat", "cat", "frog"]), 0, most=9
    )
    assert [(word.name, word.ranges) for word in words] == [
        ("red cat", ((2, 9),)),
        ("cat", ((6, 9),)),
        ("frog", ((16, 20),)),
    ]
    assert segments(PROMPT, words) == [
        {"text": "a ", "word": None},
        {"text": "red cat", "word": 0},
        {"text": " and a ", "word": None},
        {"text": "frog", "word": 2},
    ]


def test_of_all_positions_repeated_special_tokens_are_left_out():
    maps = made({DOWN: random(1, 1, 1, 1, 2, 2, 9)})
    spans = tuple(Span(token.text, (token.index,)) for token in maps.tokens[0])
    maps = maps.replace(spans=(spans,))
    words = shown_words(maps, 0, most=99)
    assert [word.name for word in words] == [
        "<first>",
        "a",
        "red",
        "cat",
        "and",
        "a#2",
        "frog",
        "<last>",
    ]
    assert "".join(piece["text"] for piece in segments(PROMPT, words)) == PROMPT
    assert (
        "1 text positions are left out: repeated special tokens and all after 40 words."
        in content(maps, "", LIMIT)["reduced"]
    )


def test_entities_are_the_words_of_the_record():
    words = shown_words(made({DOWN: random(1, 1, 1, 1, 2, 2, 2)}, ["cat", "red"]), 0, most=9)
    assert entities(PROMPT, words)["found"] == [
        {"noun": {"text": "cat", "words": [0]}, "modifiers": [{"text": "red", "words": [1]}]},
        {"noun": {"text": "frog", "words": []}, "modifiers": []},
    ]
    assert entities("very quickly", ()) == {
        "found": [],
        "note": "The parse finds no noun in this prompt.",
    }


def test_without_a_parser_the_page_says_so(monkeypatch, maps):
    def refuse(prompt):
        raise UnsupportedError(f"no parser for {prompt}")

    monkeypatch.setattr("attncontrol.inspector.wording.analyse", refuse)
    assert content(maps, "run", LIMIT)["images"][0]["entities"] == {
        "found": [],
        "note": f"no parser for {PROMPT}",
    }


class Scripts(HTMLParser):
    """The scripts of a page, {type: text}, and its title."""

    def __init__(self, html):
        super().__init__()
        self.found, self.kind, self.title = [], None, ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.kind = dict(attributes).get("type") if tag == "script" else tag

    def handle_endtag(self, _tag):
        self.kind = None

    def handle_data(self, data):
        if self.kind == "title":
            self.title += data
        elif self.kind in ("application/json", "importmap", "module"):
            self.found.append((self.kind, data))


@pytest.mark.parametrize(
    "prompt",
    [
        "a <script>alert(1)</script> cat",
        'a "cat" & <!-- <script> frog',
        "a </title><img src=x> cat\u2028",
    ],
)
def test_prompts_are_text(prompt):
    html = page(
        made({DOWN: random(1, 1, 1, 1, 2, 2, 1)}, ["cat"], prompt=prompt), titles=["</script><b>"]
    )
    read = Scripts(html)
    assert [kind for kind, _ in read.found] == ["importmap", "application/json", "module"]
    (record,) = json.loads(read.found[1][1])
    assert record["images"][0]["prompt"] == prompt
    assert record["title"] == "</script><b>"
    assert read.title == f"{prompt} \u2013 attention"
    assert "<img" not in html
    assert "alert(1)<" not in html


def test_the_page_is_one_file(maps):
    html = page(maps)
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in html  # the browser itself refuses every connection
    imports = json.loads(Scripts(html).found[0][1])["imports"]
    assert all(uri.startswith("data:text/javascript;base64,") for uri in imports.values())
    sources = {name: base64.b64decode(uri.split(",")[1]).decode() for name, uri in imports.items()}
    for source in sources.values():
        used = {line.split('"')[1] for line in source.splitlines() if line.startswith("import ")}
        assert used <= set(sources)


def sd15(images=1, branches=("cond",), steps=50, side=64):
    """The shapes of Stable Diffusion 1.5 at 512 pixels. Noise that is new in every step is the
    worst that compression can meet."""
    places = [("down_blocks", b, a, 1 << b) for b in range(3) for a in range(2)]
    places += [("up_blocks", b, a, 8 >> b) for b in (1, 2, 3) for a in range(3)]
    cells = {
        f"{name}.{b}.attentions.{a}.transformer_blocks.0.attn2": side // s
        for name, b, a, s in places
    }
    cells["mid_block.attentions.0.transformer_blocks.0.attn2"] = side // 8
    return made(
        {
            name: random(images, len(branches), steps, 8, n, n, 3, seed=k)
            for k, (name, n) in enumerate(cells.items())
        },
        branches=branches,
    )


def test_a_run_of_50_steps_fits_in_5_megabytes():
    maps = sd15()
    assert len(maps.layers) == 16
    maps.pictures = [
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).resize(
            (512, 512)
        )
    ]
    html = page(maps)
    assert len(html) < 5_000_000
    (record,) = json.loads(Scripts(html).found[1][1])
    assert len(record["steps"]) == 50
    assert record["step"]["grids"][0] == [32, 32]
    assert record["mean"]["grids"][0] == [64, 64]
    assert len(record["heads"]) == 16
    assert set(map(tuple, record["head"]["grids"])) == {(16, 16), (8, 8)}
    assert record["images"][0]["picture"]["uri"].startswith("data:image/jpeg")
    assert "Single steps: grids of at most 32 cells per side (recorded: 64)." in record["reduced"]


def test_what_does_not_fit_is_reduced_until_it_does():
    """Cells of every level, counted by the payload itself."""
    axes = payload.Axes(1, 2, 50, 1, ((0, 1, 2),), {DOWN: (64, 64), MID: (8, 8)}, {DOWN: 8, MID: 8})
    coarse = payload.fit(axes, 250_000)
    assert coarse == payload.Detail(48, 16, 16, 50)
    assert payload.fit(axes, LIMIT) == payload.LEVELS[0]
    maps = made(
        {DOWN: random(1, 2, 50, 8, 64, 64, 3), MID: random(1, 2, 50, 8, 8, 8, 3)},
        branches=("cond", "uncond"),
    )
    stored = content(maps, "run", 250_000)
    cells = sum(
        h * w * n
        for kind in ("mean", "step", "head")
        for (h, w), n in zip(stored[kind]["grids"], stored[kind]["counts"], strict=True)
    )
    assert 100_000 < cells <= 250_000
    many = replace(axes, images=3, steps=200)
    assert len(payload.bins(200, payload.fit(many, 250_000).steps)) < 50
    with pytest.raises(
        SizeError,
        match=r"one page cannot hold this record: [\d,]+ cells at the coarsest level, 10 fit",
    ):
        payload.fit(axes, 10)


def test_bins_hold_every_step_once():
    assert payload.bins(3, 50) == [[0], [1], [2]]
    assert payload.bins(7, 3) == [[0, 1, 2], [3, 4], [5, 6]]


def test_bins_are_means_of_steps():
    maps = made({DOWN: random(1, 1, 60, 1, 4, 4, 3)})
    found = content(maps, "run", LIMIT)
    expected = torch.stack(
        [maps.layers[DOWN][:, :, part].mean((2, 3)) for part in payload.bins(60, 50)], 2
    )
    assert_close(decoded(found["step"])[0], expected.permute(0, 1, 5, 2, 3, 4).numpy())
    assert found["steps"][0] == {"first": 0, "last": 1, "timestep": 1000.0, "sigma": None}
    assert "60 steps are shown as 50 means of neighbours." in found["reduced"]


def test_pictures_keep_their_shape():
    maps = made({DOWN: random(2, 1, 1, 1, 2, 4, 3)})
    maps.pictures = 2 * [Image.new("RGB", (1536, 512))]
    first, second = content(maps, "run", LIMIT)["images"]
    for each in (first, second):
        assert (each["picture"]["width"], each["picture"]["height"]) == (1536, 512)


def test_other_records_are_refused(maps):
    other = maps.replace(direction="text->image")
    with pytest.raises(
        RecordError, match="from the picture to words, image->text; this record is text->image"
    ):
        page(other)
    with pytest.raises(CouplingError, match="nothing is recorded yet"):
        page(AttentionMaps())


def test_the_command_writes_pages(maps, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    first, second = (
        save(maps, tmp_path / name) for name in ("plain.safetensors", "guided.safetensors")
    )
    result = runner.invoke(app, ["inspect", str(first), "--json"])
    assert result.exit_code == 0
    file = tmp_path / "plain.html"
    assert json.loads(result.stdout) == {
        "file": str(file),
        "bytes": file.stat().st_size,
        "records": [str(first)],
    }
    assert not opened
    both = tmp_path / "new" / "both.html"
    assert (
        runner.invoke(
            app, ["inspect", str(first), str(second), "--out", str(both), "--open"]
        ).exit_code
        == 0
    )
    assert opened == [both.as_uri()]
    records = json.loads(Scripts(both.read_text("utf-8")).found[1][1])
    assert [record["title"] for record in records] == ["plain", "guided"]
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    result = runner.invoke(app, ["inspect", str(first), str(tmp_path / "photo.png")])
    assert (result.exit_code, "is replaced" in result.stderr) == (2, False)
    result = runner.invoke(app, ["inspect", str(tmp_path / "missing.safetensors")])
    assert result.exit_code == 2
    assert "does not exist" in " ".join(result.stderr.split())
