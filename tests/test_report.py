"""The report of a job: what is compared with what, statistics, tables, and what is in the page."""

import csv
import io
import json
import math
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from attncontrol.cli import app
from attncontrol.errors import ResultsError, SettingError, SizeError, WriteError
from attncontrol.jobs.index import read
from attncontrol.jobs.item import Item
from attncontrol.report import rows as rows_module
from attncontrol.report import write as write_module
from attncontrol.report.arms import Arm, arms_of, settings_of, shared_settings
from attncontrol.report.page import page, require_size
from attncontrol.report.rows import Row, inside, rows_of
from attncontrol.report.statistics import lines_of
from attncontrol.report.tables import FIRST, columns, harmless, write_csv, write_parquet
from attncontrol.report.write import prepare
from attncontrol.scores.kept import Kept, source_of
from attncontrol.scores.names import Models
from tests.kit.jobs import job, made, pairs, redness

OWN = "tests.kit.jobs:redness"
HOSTILE = (
    "<script>document.title='x'</script>",
    "</script><img src=x onerror=document.title='x'>",
    "<!--<script>",
    "\"quotes\" 'both' `ticks` ${document.title} {{ 7 * 7 }}",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "  =1+1",
    "a;=1+1",
    "-a, +b",
    "two\r\nlines\tand \x00 \x1b[31m",
    "\u202eright to left \U0001f600 e\u0301",
    "a\u2028b\u2029c",
)


def write(*args, **what):
    return prepare(*args, **what).write()


def names(*items):
    return [arm.name for arm in arms_of(list(items))]


def test_arms_are_methods_with_the_settings_that_differ():
    plain, auto = Item(prompt="a cat"), Item(prompt="a cat", method="auto", step_size="6%")
    assert names(plain, auto) == ["plain", "auto"]
    more = auto.model_copy(update={"step_size": "3%"})
    assert names(plain, auto, more) == ["plain", "auto, step_size 6%", "auto, step_size 3%"]
    other = plain.model_copy(update={"model": "sprites-flux"})
    arms = arms_of([plain, other, auto])
    assert arms[1] == Arm("plain", (("model", "sprites-flux"),))
    assert [arm.name for arm in arms] == ["plain", "plain, model sprites-flux", "auto"]
    wide = auto.model_copy(update={"parameters": {"sigma": 0.5}})
    assert names(auto, wide) == ["auto", "auto, sigma 0.5"]


def test_what_is_asked_with_a_prompt_tells_pictures_of_one_place_apart():
    words = Item(prompt="a red cat", method="auto", words=[["red", "cat"]])
    others = Item(prompt="a frog", method="auto", words=[["frog"]])
    assert names(words, others) == ["auto", "auto"]
    again = words.model_copy(update={"words": [["cat"]]})
    assert names(words, again) == ["auto, words red cat", "auto, words cat"]


def test_settings_in_words():
    item = Item(
        prompt="a cat", seed=3, method="boxdiff", boxes={"cat": (0, 0.2, 0.5, 0.9)}, steps=30,
        heads=[("down.0", 3)], parameters={"sigma": 0.5, "descent.step_size": 20},
        lora=[{"path": "a"}],
    )  # fmt: skip
    assert settings_of(item) == {
        "boxes": "cat 0, 0.2, 0.5, 0.9", "steps": "30", "heads": "down.0 3", "sigma": "0.5",
        "descent.step_size": "20", "lora": "path a",
    }  # fmt: skip
    assert shared_settings([item, Item(prompt="b", steps=30)]) == {
        "model": "sprites",
        "steps": "30",
    }
    assert shared_settings([]) == {}


def row(value, prompt="a", seed=0, error=None, seconds=1.0, **item):
    of = Item(prompt=prompt, seed=seed, **item)
    what = made(of, seconds=seconds)
    return Row(what, Arm(of.method), error=error, scores={} if error else {"s": value})


def test_gains_are_paired_by_prompt_and_seed():
    rows = [
        row(0.0, "a", 0), row(1.0, "a", 1), row(0.2, "b", 0), row(0.5, "c", 0),
        row(1.0, "a", 0, method="auto", seconds=2.0), row(0.7, "b", 0, method="auto", seconds=4.0),
        row(0.9, "b", 7, method="auto", seconds=90.0), row(0.0, "a", 1, error="x", method="auto"),
    ]  # fmt: skip
    plain, auto = lines_of(rows, ["s"])
    assert (plain.pictures, plain.failed, plain.against, plain.gains) == (4, 0, None, {})
    assert plain.means["s"].value == pytest.approx((0.5 + 0.2 + 0.5) / 3)  # prompts count alike
    assert (auto.pictures, auto.failed, auto.pairs) == (3, 1, 2)
    assert auto.against == Arm("plain")
    assert auto.means["s"].value == pytest.approx((1.0 + 0.8) / 2)
    gain = auto.gains["s"]
    assert gain.value == pytest.approx((1.0 + 0.5) / 2)
    assert (gain.low, gain.high, gain.prompts) == (pytest.approx(0.5), pytest.approx(1.0), 2)
    assert auto.time == pytest.approx(3.0)  # of the pairs alone
    assert auto.seconds == 4.0


def test_intervals_are_those_of_a_bootstrap_over_prompts():
    rng = np.random.default_rng(4)
    values = {"plain": rng.random((9, 3)), "auto": rng.random((9, 3))}
    rows = [
        row(float(of[p, s]), f"p{p}", s, method=method)
        for method, of in values.items()
        for p in range(9)
        for s in range(3)
    ]
    gain = lines_of(rows, ["s"])[1].gains["s"]
    difference = (values["auto"] - values["plain"]).mean(1)
    draws = difference[np.random.default_rng(0).integers(9, size=(2000, 9))].mean(1)
    assert gain.value == pytest.approx(difference.mean())
    assert [gain.low, gain.high] == pytest.approx(np.quantile(draws, (0.025, 0.975)))


def test_what_a_score_says_nothing_about_counts_nowhere():
    nan = math.nan
    rows = [
        row(0.5, "a"),
        row(nan, "b"),
        row(nan, "a", method="auto"),
        row(1.0, "b", method="auto"),
    ]
    plain, auto = lines_of(rows, ["s", "t"])
    assert (plain.means["s"].value, plain.means["s"].prompts) == (0.5, 1)
    assert math.isnan(plain.means["s"].low)
    assert "s" not in auto.gains
    assert "t" not in auto.means


def arm_row(arm, prompt="a", seed=0):
    return Row(made(Item(prompt=prompt, seed=seed, method=arm.method)), arm, scores={"s": 1.0})


def test_each_arm_is_compared_within_its_setup():
    flux = (("model", "flux"),)
    arms = [Arm("auto"), Arm("plain"), Arm("auto", flux), Arm("plain", flux), Arm("syngen", flux)]
    against = [line.against for line in lines_of([arm_row(arm) for arm in arms], ["s"])]
    assert against == [arms[1], None, arms[3], None, arms[3]]


def test_edits_without_a_plain_picture_are_compared_with_the_first():
    rows = [arm_row(Arm("plain"), "source"), arm_row(Arm("p2p"), "target"),
            arm_row(Arm("replace"), "target")]  # fmt: skip
    assert [line.against for line in lines_of(rows, ["s"])] == [None, None, Arm("p2p")]


@pytest.mark.parametrize(
    ("file", "safe"),
    [
        ("pictures/a.png", True), ("a b'\".png", True), ("/etc/passwd", False), ("", False),
        ("../a.png", False), ("a/../../b.png", False), ("javascript:alert(1)", False),
        (None, False),
        ("//host/a.png", False), ("C:\\a.png", False), ("http://host/a.png", False), (".", False),
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_folder(file, safe):
    assert (inside(file) is not None) == safe


def test_pictures_that_are_not_there_or_broken_are_said(tmp_path):
    items = [Item(prompt="a cat", seed=seed) for seed in range(6)]
    pictures = [made(item, folder=tmp_path) for item in items]
    (tmp_path / pictures[1].file).unlink()
    (tmp_path / pictures[2].file).write_bytes(b"\x89PNG\r\n\x1a\nnot at all")
    half = (tmp_path / pictures[3].file).read_bytes()[:60]
    (tmp_path / pictures[3].file).write_bytes(half)
    pictures[4] = made(items[4], file="../../secret.png")
    pictures[5] = made(items[5], file=None, pixels=None, error="MemoryError: too large")
    rows = rows_of(tmp_path, pictures, {"red": redness})
    assert rows[0].error is None
    assert rows[0].scores["red"] == pytest.approx(128 / 255)
    assert [row.error and row.error.split(":")[0] for row in rows] == [
        None, f"{pictures[1].file} is not there any more", f"{pictures[2].file} cannot be read",
        f"{pictures[3].file} cannot be read",
        "the index names '../../secret.png', which is no file of this folder", "MemoryError",
    ]  # fmt: skip
    assert all(row.small is None and not row.scores for row in rows[1:])


def test_a_picture_that_was_changed_is_said(tmp_path):
    what = made(Item(prompt="a cat"), folder=tmp_path)
    Image.new("RGB", (24, 16), "red").save(tmp_path / what.file)
    (row,) = rows_of(tmp_path, [what], {"red": redness})
    assert (row.error, row.scores) == (
        f"{what.file} is not the picture that was made; batch --verify makes it again", {},
    )  # fmt: skip


def test_small_pictures(tmp_path, monkeypatch):
    item = Item(prompt="a cat")
    pictures = [made(item, folder=tmp_path, size=(512, 256), color="blue")]
    (small,) = rows_of(tmp_path, pictures, {})
    with Image.open(io.BytesIO(small.small)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (128, 64))
        assert np.asarray(picture.convert("RGB")).mean((0, 1)) == pytest.approx([0, 0, 255], abs=8)
    assert small.size == (512, 256)
    monkeypatch.setattr(rows_module, "SIDES", ((0, 128), (9, 64)))
    with Image.open(io.BytesIO(rows_of(tmp_path, pictures, {})[0].small)) as picture:
        assert picture.size == (64, 32)


def test_pictures_are_read_a_few_at_a_time(tmp_path):
    pairs(tmp_path, [f"p{k}" for k in range(40)])
    sizes = []

    def count(pictures, items):
        sizes.append((len(pictures), len(items)))
        return [0.0] * len(pictures)

    rows = rows_of(tmp_path, write_module.read(tmp_path), {"count": count})
    assert len(rows) == 160
    assert sizes == [(64, 64), (64, 64), (32, 32)]


def test_tables(tmp_path):
    item = Item(prompt="a cat", seed=2**64 - 1, method="auto", step_size="6%", words=[["cat"]])
    what = made(item, losses=(2.0, 0.5), refinements=(3, 1), record="records/a.safetensors")
    rows = [
        Row(what, Arm("auto"), scores={"clip": 0.25, "seed": 2.0}),
        Row(made(Item(prompt="b"), file=None, error="bad"), Arm("plain"), error="bad"),
    ]
    table = columns(rows, ["clip", "seed"])
    assert tuple(table) == (*FIRST, "clip", "score seed")
    assert {name: values[0] for name, values in table.items()} == {
        "name": item.name, "prompt": "a cat", "seed": 2**64 - 1, "arm": "auto", "method": "auto",
        "model": "sprites", "settings": '{"words": "cat", "step_size": "6%"}', "source": None,
        "file": f"pictures/{item.name}.png", "record": "records/a.safetensors", "error": None,
        "seconds": 1.0, "loss": 0.5, "refinements": 4, "clip": 0.25, "score seed": 2.0,
    }  # fmt: skip
    assert [table[name][1] for name in ("error", "loss", "refinements", "clip")] == [
        "bad", None, None, None,
    ]  # fmt: skip
    write_csv(rows, ["clip"], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert (first["seed"], first["clip"], second["clip"]) == (str(2**64 - 1), "0.25", "")
    write_csv(rows, ["clip", "seed"], tmp_path / "scores.csv")  # its own is replaced
    other = tmp_path / "other.csv"
    other.write_text("name,prompt\n")
    with pytest.raises(WriteError, match="was not made by this command"):
        write_csv(rows, [], other)


def test_no_cell_is_a_formula(tmp_path):
    rows = [row(-0.5, prompt) for prompt in HOSTILE]
    write_csv(rows, ["s"], tmp_path / "scores.csv")
    text = (tmp_path / "scores.csv").read_bytes().decode()
    assert "\x00" not in text
    for line in csv.reader(text.splitlines(), delimiter=";"):  # as a spreadsheet may part cells
        assert not [cell for cell in line[1:] if cell.lstrip()[:1] in tuple("=+-@")]
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as stream:
        cells = list(csv.DictReader(stream))
    assert not [cell for line in cells for name, cell in line.items()
                if name != "s" and cell.lstrip()[:1] in tuple("=+-@")]  # fmt: skip
    assert {line["s"] for line in cells} == {"-0.5"}
    assert [harmless(value) for value in ("=a", " +a", "a=b", "\uff1da", -1.5, None)] == [
        "'=a", "' +a", "a=b", "'\uff1da", -1.5, None,
    ]  # fmt: skip


def test_parquet_has_types_and_texts_as_they_are(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row(0.5, prompt) for prompt in HOSTILE] + [row(math.nan, "b", 2**64 - 1)]
    write_parquet(rows, ["s"], tmp_path / "scores.parquet")
    table = parquet.read_table(tmp_path / "scores.parquet")
    assert table["prompt"].to_pylist() == [*HOSTILE, "b"]
    assert table["s"].to_pylist() == [0.5] * len(HOSTILE) + [None]
    assert table["seed"].to_pylist()[-1] == 2**64 - 1
    assert {str(table.schema.field(name).type) for name in ("seed", "s", "prompt")} == {
        "uint64", "double", "string",
    }  # fmt: skip
    write_parquet(rows, [], tmp_path / "scores.parquet")
    parquet.write_table(table.replace_schema_metadata({}), tmp_path / "other.parquet")
    with pytest.raises(WriteError, match="was not made by this command"):
        write_parquet(rows, [], tmp_path / "other.parquet")


def data_of(text):
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def test_the_page_holds_what_was_made(tmp_path):
    pairs(tmp_path)
    report = write(tmp_path, [OWN])
    assert report.files[0] == tmp_path / "report.html"
    text = report.files[0].read_text("utf-8")
    data = data_of(text)
    assert data["arms"] == ["plain", "auto"]
    assert data["prompts"] == ["a cat", "a frog"]
    assert data["seeds"] == ["0", "1"]
    assert data["shared"] == {"model": "sprites"}
    assert [picture["scores"][0] for picture in data["pictures"][:4]] == [1.0, 1.01, 0.0, 0.01]
    assert data["lines"][1]["gains"][0] == {"value": -1.0, "low": -1.0, "high": -1.0, "prompts": 2}
    first = data["pictures"][0]
    assert first["file"] == "./" + report.rows[0].made.file
    assert first["repeat"] == f"attncontrol repeat {tmp_path / report.rows[0].made.file}"
    assert "http" not in re.sub(r"base64,[\w+/=]*", "", text).replace("http-equiv", "")
    assert text.count("default-src 'none'") == 1


def test_texts_of_others_cannot_leave_their_place(tmp_path):
    """Whatever prompts, methods, errors and file names say."""
    pictures = []
    for k, prompt in enumerate(HOSTILE):
        first, second = (
            Item(prompt=prompt, seed=seed, method=f"m:{prompt}", negative=prompt)
            for seed in (k, 100 + k)
        )
        pictures.append(made(first, file=None, error=prompt))
        pictures.append(made(second, file=f"pictures/{k}{prompt}"))
    job(tmp_path, pictures)
    text = write(tmp_path, []).files[0].read_text("utf-8")
    assert re.findall(r"<script[^>]*>", text) == [
        '<script type="importmap">', '<script type="application/json" id="data">',
        '<script type="module">',
    ]  # fmt: skip
    assert text.count("</script>") == 3
    assert "<img" not in text
    assert not re.search("[\u2028\u2029\x00\x1b]", text)
    data = data_of(text)
    assert data["prompts"] == list(HOSTILE)
    assert [picture["error"] for picture in data["pictures"][::2]] == list(HOSTILE)


def test_links_are_relative_to_the_page_and_quoted(tmp_path):
    folder, item = tmp_path / "a job's #1", Item(prompt="a cat")
    name, record = "pictures/a 'b' #?%20.png", "records/a b.safetensors"
    folder.mkdir()
    what = made(item, folder=folder, file=name, record=record)
    Image.new("RGB", (24, 16), "gray").save(folder / name)
    (folder / "records").mkdir()
    job(folder, [what])
    out = tmp_path / "pages" / "today.html"
    report = write(folder, [], out=out)
    assert report.files[:2] == (out, out.with_name("scores.csv"))
    picture = data_of(out.read_text("utf-8"))["pictures"][0]
    assert picture["file"] == ("./../a%20job%27s%20%231/pictures/a%20%27b%27%20%23%3F%2520.png")
    assert picture["record"] == "./../a%20job%27s%20%231/records/a%20b.safetensors"
    assert "inspector" not in picture
    assert picture["inspect"].startswith("attncontrol inspect '")
    (folder / "records" / "a b.html").write_text("")
    write(folder, [], out=out)
    picture = data_of(out.read_text("utf-8"))["pictures"][0]
    assert picture["inspector"].endswith("records/a%20b.html")


def test_what_is_not_ours_is_not_written_over(tmp_path):
    pairs(tmp_path)
    write(tmp_path, [])
    write(tmp_path, [])  # its own again
    for name in ("report.html", "scores.csv", "scores.parquet"):
        other = tmp_path / name
        other.write_text("mine")
        with pytest.raises(WriteError, match=f"{name} exists and was not made by this command"):
            write(tmp_path, [])
        assert other.read_text() == "mine"
        other.unlink()


def test_pictures_are_scored_once(tmp_path):
    """Again by another source of a score, and pictures that are new or changed, or asked otherwise;
    what cannot be told is never kept."""
    seen = []

    def count(pictures, items):
        seen.append(len(pictures))
        return redness(pictures, items)

    pairs(tmp_path)
    pictures = read(tmp_path)

    def kept(source):
        return Kept(tmp_path / "scores.jsonl", {"red": count}, {"red": source})

    first = kept("a")
    rows = rows_of(tmp_path, pictures[:5], first)
    again = Kept.read(tmp_path, {"red": count}, Models())
    again.sources["red"] = "a"
    assert [row.scores for row in rows_of(tmp_path, pictures, again)[:5]] == [
        r.scores for r in rows
    ]
    assert seen == [5, 3]
    for source, count_of in (("b", 8), (None, 8), (None, 8)):
        again.sources["red"] = source
        rows_of(tmp_path, pictures, again)
        assert seen.pop() == count_of
    text = (tmp_path / "scores.jsonl").read_text()
    assert len([line for line in text.split("\n") if line]) == 16
    (tmp_path / "scores.jsonl").write_text('\n["a"]\n')
    with pytest.raises(ResultsError, match="holds no scores"):
        Kept.read(tmp_path, {}, Models())


def test_a_score_is_told_by_its_module_and_its_models(tmp_path):
    here = source_of("own", redness, Models())
    assert here == source_of("own", redness, Models(clip="x"))
    assert source_of("other", redness, Models()) != here
    assert source_of("own", len, Models()) is None
    (tmp_path / "weights").write_text("a")
    before = source_of("clip", redness, Models(clip=str(tmp_path)))
    (tmp_path / "weights").write_text("ab")
    assert source_of("clip", redness, Models(clip=str(tmp_path))) != before
    assert source_of("clip", redness, Models()) == source_of("clip", len, Models(vqa="x"))


def test_refusals_come_before_a_picture_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(write_module, "rows_of", None)
    with pytest.raises(ResultsError, match=r"has no index\.sqlite"):
        write(tmp_path)
    job(tmp_path, [])
    with pytest.raises(ResultsError, match=r"index\.sqlite is empty: nothing was made yet"):
        write(tmp_path)
    job(tmp_path, [made(Item(prompt="a cat", model="other/model"))])
    with pytest.raises(SettingError, match="score 'present' knows pictures of sprites"):
        write(tmp_path, ["present"])
    with pytest.raises(SizeError, match=r"20,000 pictures and this job has 20,001; --no-page"):
        require_size(20_001)


def test_pages_of_one_picture_and_of_failures_alone(tmp_path):
    item = Item(prompt="a cat")
    job(tmp_path, [made(item, file=None, error="bad")])
    report = write(tmp_path)
    assert (report.scores, report.lines[0].failed) == (("present", "bound", "confidence"), 1)
    assert data_of(report.files[0].read_text("utf-8"))["pictures"][0]["error"] == "bad"
    assert "pictures" in page(report.rows, [], tmp_path, tmp_path / "page.html")


run = CliRunner()


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    pairs(tmp_path)
    done = run.invoke(app, ["report", str(tmp_path), "--score", OWN, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert str(tmp_path / "report.html") in told["files"]
    assert told["lines"][1]["against"] == "plain"
    assert told["lines"][1]["gains"][OWN]["value"] == pytest.approx(-1.0)
    done = run.invoke(app, ["report", str(tmp_path), "--no-page", "--score", OWN])
    assert done.exit_code == 0
    assert "-1.000" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "does not exist"),
        (["FOLDER", "--score", "presnt"], "did you mean present?"),
        (["FOLDER", "--score", "no_such_module:a"], "there is no module no_such_module"),
        (["FOLDER", "--score", "clip", "--clip-model", "no/such/folder"], "cannot be loaded"),
        (["FOLDER", "--clip-model", " "], "the name is empty"),
        (["FOLDER", "--out", "FOLDER/page.txt"], "a page ends in .html"),
        (["EMPTY"], "has no index.sqlite"),
    ],
)
def test_what_the_command_refuses(tmp_path, arguments, said):
    folder, empty = tmp_path / "job", tmp_path / "empty"
    folder.mkdir()
    empty.mkdir()
    pairs(folder)
    places = {"FOLDER": str(folder), "EMPTY": str(empty)}
    given = [re.sub("FOLDER|EMPTY", lambda m: places[m[0]], each) for each in arguments]
    done = run.invoke(app, ["report", *given])
    assert done.exit_code == 2
    assert said in " ".join(re.sub("[│╭╰─╮╯]", " ", done.output).split())
    assert not list(folder.glob("report.html"))


def test_an_index_that_is_none(tmp_path):
    (tmp_path / "index.sqlite").write_text("no database")
    with pytest.raises(ResultsError, match="is no index of a job"):
        write(tmp_path)
    (tmp_path / "index.sqlite").unlink()
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("CREATE TABLE pictures(a)")
        connection.execute("INSERT INTO pictures VALUES (1)")
    with pytest.raises(ResultsError, match="is no index of a job"):
        write(tmp_path)
