"""The suite of edits: its tasks, its judge on true scenes, its methods, and what goes on where it
was."""

from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from attncontrol import sprites
from attncontrol.batch.options import load_pipeline
from attncontrol.bench.edit_suite.compare import run
from attncontrol.bench.edit_suite.judge import judged
from attncontrol.bench.edit_suite.methods import Batch, expanded, fits, judged_by, make, parts
from attncontrol.bench.edit_suite.sources import Case, cases, draw, shifted
from attncontrol.bench.edit_suite.tasks import FIRST_SEED, Task, task, tasks
from attncontrol.bench.prompts import things_of
from attncontrol.bench.rows import EditRow, read
from attncontrol.bench.suites import EDITS
from attncontrol.bench.summary import markdown, summary
from attncontrol.cli import app
from attncontrol.errors import ResultsError, SettingError
from attncontrol.export import chart
from attncontrol.export.chart import curves, is_chart
from attncontrol.sprites.scenes import Scene, Thing, caption, render
from attncontrol.sprites.scorer import detect

CAT, BLUE, FROG, DOG = Thing("cat", "red"), Thing("cat", "blue"), Thing("frog"), Thing("dog", "red")
HERE, THERE, ELSEWHERE = (2, 2), (64, 64), (66, 2)
PERFECT = 58.92  # dB, of 8 bits


def painted(*things, tone=0):
    """Of (thing, place)."""
    those, places = zip(*things, strict=True)
    text, nouns, colors = caption(those)
    boxes = tuple((left, top, 60, 60) for left, top in places)
    return Image.fromarray(render(Scene(text, those, those, boxes, nouns, colors, (tone, 0)))[0])


SOURCE = painted((CAT, HERE), (FROG, THERE))


def of(kind, before, after, rest, picture, *, source=SOURCE, move=(0, 0)):
    about = Task(kind, (CAT, FROG), tuple(t for t in (after, rest) if t), 0, before, after, rest)
    case = Case(about, source, tuple(detect([source])[0]), move)
    return judged([case], [picture])[0]


@pytest.mark.parametrize("kind", EDITS)
def test_tasks_are_the_same_everywhere(kind):
    first, second, third = islice(tasks(kind), 3)
    assert [each.seed - FIRST_SEED for each in (first, second, third)] == [0, 1, 2]
    assert len({str(first), str(second), str(third)}) == 3
    assert [first, second] == [task(kind, 0), task(kind, 1)]
    for each in (first, second):
        named = {thing for thing in (each.before, each.rest) if thing}
        assert named == (set(each.source) if kind != "regions" else set())
        assert things_of(each.prompt) == each.target
        assert (each.target_seed == each.seed) == (kind != "style")


def test_kinds_change_what_they_say():
    assert str(task("recolour", 2)) == (
        "a white balloon and a monkey -> a red balloon and a monkey"
    )
    assert str(task("swap", 2)).split(" -> ")[1].endswith(" and a monkey")
    assert str(task("swap", 3)).split(" -> ")[1].startswith("a brown horse and a ")
    assert str(task("add", 2)) == "a white balloon -> a white balloon and a monkey"
    assert str(task("remove", 2)).endswith(" -> a monkey")
    assert str(task("remove", 3)).endswith(" -> a brown horse")
    assert str(task("style", 2)) == "a white balloon -> a monkey"
    assert task("move", 2).source == task("move", 2).target == task("swap", 2).source
    placed = task("regions", 2)
    assert list(placed.boxes) == [thing.noun for thing in placed.target] == ["balloon", "monkey"]


def test_a_picture_that_stays_as_it_is():
    same = of("recolour", CAT, BLUE, FROG, SOURCE)
    assert (same.shown, same.kept, same.iou, same.tint) == (0, 1, 1, 0)
    assert (same.outside, same.other) == pytest.approx((PERFECT, PERFECT), abs=0.01)
    dimmed = Image.fromarray((np.asarray(SOURCE) * 0.9).round().astype(np.uint8))
    lighter = Image.fromarray((np.asarray(dimmed) + 10).astype(np.uint8))
    by_ten = of("recolour", CAT, BLUE, FROG, lighter, source=dimmed)
    decibels = 20 * np.log10(255 / 10)
    assert (by_ten.outside, by_ten.other) == pytest.approx((decibels, decibels))
    assert by_ten.tint == pytest.approx(10 / 255)


def test_what_is_changed_and_what_stays():
    right = of("recolour", CAT, BLUE, FROG, painted((BLUE, HERE), (FROG, THERE)))
    assert (right.shown, right.kept) == (1, 1)
    assert right.iou > 0.9
    assert right.outside > 45
    assert (right.other, right.tint) == (pytest.approx(PERFECT, abs=0.01), 0)
    assert right.confidence > 0.8
    moved = of("swap", CAT, DOG, FROG, painted((DOG, HERE), (FROG, ELSEWHERE)))
    assert (moved.shown, moved.kept) == (1, 0)
    assert 0.5 < moved.iou < right.iou
    assert moved.other < moved.outside < 25
    tinted = of("swap", CAT, DOG, FROG, painted((DOG, HERE), (Thing("frog", "pink"), THERE)))
    assert (tinted.shown, tinted.kept) == (1, 0)
    assert tinted.tint > 0.2
    gone = of("swap", CAT, DOG, FROG, painted((FROG, THERE)))
    assert (gone.shown, gone.kept, gone.iou) == (0, 1, 0)


def test_things_that_come_and_go_and_move():
    alone = painted((FROG, THERE))
    added = of("add", None, CAT, FROG, SOURCE, source=alone)
    assert (added.shown, added.kept) == (1, 1)
    assert added.iou > 0.9
    assert of("add", None, CAT, FROG, alone, source=alone).shown == 0
    removed = of("remove", CAT, None, FROG, alone)
    assert (removed.shown, removed.kept) == (1, 1)
    assert removed.iou > 0.9
    assert removed.outside > 45
    assert of("remove", CAT, None, FROG, SOURCE).shown == 0
    below = painted((CAT, (2, 34)), (FROG, THERE))
    moved = of("move", CAT, CAT, FROG, below, move=(0, 32))
    assert (moved.shown, moved.kept) == (1, 1)
    assert moved.iou > 0.9
    stays = of("move", CAT, CAT, FROG, SOURCE, move=(0, 32))
    assert (stays.shown, stays.kept) == (0, 1)


def test_style_is_the_color_and_the_background():
    source = painted((CAT, HERE))
    red = of("style", CAT, FROG, None, painted((Thing("frog", "red"), THERE)), source=source)
    assert (red.shown, red.kept) == (1, 1)
    assert red.outside > 45
    assert np.isnan([red.iou, red.other, red.tint]).all()
    green = of("style", CAT, FROG, None, painted((FROG, THERE), tone=3), source=source)
    assert (green.shown, green.kept) == (1, 0)
    assert green.outside < 25


def test_regions_are_judged_by_their_boxes():
    boxes = {"cat": (0.02, 0.02, 0.48, 0.48), "frog": (0.0, 0.8, 0.1, 1.0)}
    case = Case(Task("regions", (), (CAT, FROG), 0, boxes=boxes))
    found = judged([case], [SOURCE])[0]
    assert found.shown == 1
    assert 0.35 < found.iou < 0.5  # one of two
    assert np.isnan([found.kept, found.outside, found.other, found.tint]).all()


def test_masks_are_shifted_with_a_loss_at_the_edges():
    where = np.zeros((4, 5), bool)
    where[1, 3] = where[3, 0] = True
    assert np.argwhere(shifted(where, (1, -1))).tolist() == [[0, 4], [2, 1]]
    assert np.argwhere(shifted(where, (2, 1))).tolist() == []
    assert (shifted(where, (0, 0)) == where).all()


class Painter:
    """A pipeline that draws true scenes, the places by the seed; brown things it cannot draw."""

    device, dtype, calls = torch.device("cpu"), torch.float32, 0

    def __call__(self, prompts, generator, **_):
        self.calls += 1
        pictures = []
        for prompt, each in zip(prompts, generator, strict=True):
            things = [thing for thing in things_of(prompt) if thing.color != "brown"]
            places = (HERE, THERE) if each.initial_seed() % 2 else (ELSEWHERE, (2, 64))
            pictures.append(painted(*zip(things or [FROG], places, strict=False)))
        return SimpleNamespace(images=pictures)


def plainly(items, _):
    return items


def test_a_run_goes_on_where_it_was(tmp_path):
    painter, options = Painter(), {"batch": 4, "progress": plainly}
    rows = run(painter, "recolour", ["same-seed"], 5, tmp_path, **options)
    assert [row.kept for row in rows] == [1] * 5
    assert all("a brown" not in row.prompt.split(" -> ")[0] for row in rows)
    assert len({row.seed for row in rows}) == 5
    calls, file = painter.calls, tmp_path / "edits.csv"
    assert run(painter, "recolour", ["same-seed"], 5, tmp_path, **options) == rows
    assert painter.calls == calls
    file.write_bytes(file.read_bytes()[:-9])  # as a killed process leaves it
    again = run(painter, "recolour", ["same-seed"], 5, tmp_path, **options)
    assert painter.calls == calls + 1
    assert [replace(row, seconds=0.0, memory=0.0) for row in again] == [
        replace(row, seconds=0.0, memory=0.0) for row in rows
    ]
    assert read(file, EditRow) == again
    with pytest.raises(ResultsError, match="other settings"):
        run(painter, "recolour", ["same-seed"], 5, tmp_path, **options, num_inference_steps=3)


def test_sources_show_what_they_say_and_nothing_new(tmp_path):
    found = cases(Painter(), "move", 4, tmp_path, progress=plainly)
    for case in found:
        assert {thing.noun for thing in case.task.source} <= {each.noun for each in case.found}
        assert case.move in ((32, 0), (0, 32), (-32, 0), (0, -32))
    assert len(cases(Painter(), "regions", 3, tmp_path, progress=plainly)) == 3


def test_names_of_methods():
    assert expanded(["replace", "sdedit@curve"]) == [
        "same-seed", "replace", *(f"sdedit@{u:g}" for u in (0.3, 0.45, 0.6, 0.75, 0.9))
    ]  # fmt: skip
    assert expanded(["replace@0.4+blend@0.3+auto"])[1] == "replace@0.4+blend@0.3+auto"
    assert fits("same-seed", "regions")
    assert fits("dense+auto", "regions")
    assert not fits("replace+auto", "regions")
    assert fits("regions+placement", "regions")
    for name, message in (
        ("p3p", "'p3p': choose from same-seed, sdedit, p2p"),
        ("replace+sdedit@0.3", "'sdedit@0.3' in .*: choose from p2p"),
        ("replace@much", "write its strength as replace@0.4"),
        ("sdedit", "sdedit needs a strength"),
        ("auto@1", "auto has no strength"),
    ):
        with pytest.raises(SettingError, match=message):
            expanded([name])


def test_placement_has_the_boxes_of_coloured_things():
    of = task("regions", 0)
    ((part, _),) = parts("placement")
    first, second = of.target
    boxes = {f"{thing.color} {thing.noun}": of.boxes[thing.noun] for thing in (first, second)}
    assert part.make(Batch([Case(of)]), None).layout == {of.prompt: boxes}


def test_pictures_are_judged_by_their_sources_which_stay_unless_they_are_steered():
    pipe = load_pipeline("sprites")
    pipe.set_progress_bar_config(disable=True)
    call = sprites.call() | {"num_inference_steps": 2}
    case = Case(task("swap", 2), SOURCE, tuple(detect([SOURCE])[0]))
    (plain,), none = make(pipe, "same-seed", [case], **call)
    assert none == []
    (edited,), (source,) = make(pipe, "replace", [case], **call)
    first = draw(pipe, [(case.task.source_prompt, case.task.seed)], call)[0]
    assert np.abs(apart(source, first)).max() <= 1
    assert np.abs(apart(edited, plain)).max() > 1
    assert judged_by("replace", case, source).picture is SOURCE
    assert judged_by("replace+auto", case, source).picture is source
    assert make(pipe, "sdedit@0.5", [case], **call)[0][0].size == (128, 128)


def apart(one, other):
    return np.asarray(one, int) - np.asarray(other, int)


def test_the_table_and_the_curves(tmp_path):
    made = []
    for method, shown, outside in (
        ("same-seed", 1.0, 20.0),
        ("a@0.2", 1.0, 30.0),
        ("a@0.8", 0.0, 40.0),
    ):
        for seed in range(3):
            rest = {"iou": 0.5, "other": 30.0, "tint": 0.1, "confidence": 0.9}
            costs = {"seconds": 1.0, "memory": 10.0}
            made.append(EditRow("swap", method, "x -> y", seed, shown, 1.0, outside=outside + seed,
                                **rest, **costs))  # fmt: skip
    lines = summary(made)
    assert [line["outside"] for line in lines] == [21, 31, 41]
    assert lines[2]["outside_interval"] == [20, 20]
    assert [line["both"] for line in lines] == [1, 1, 0]
    assert "| a@0.8 | 3 | 0.0 (-100.0; -100 to -100) | 100.0 (+0.0; 0 to 0) |" in markdown(lines)
    assert " | 41.0 (+20.0; 20.0 to 20.0) | " in markdown(lines)
    curves(lines, "outside", "shown", tmp_path / "curves.png")
    assert is_chart(tmp_path / "curves.png")


def test_the_usual_strength_is_no_point_of_its_curve(tmp_path, monkeypatch):
    """A curve goes from strength to strength; the default has a place of its own beside it."""
    drawn = []
    monkeypatch.setattr(chart, "_written", lambda figure, _: drawn.append(figure))
    names = {"same-seed": 20.0, "p2p@0.2": 30.0, "p2p": 33.0, "p2p@0.4": 35.0, "p2p+auto": 40.0}
    lines = [
        {"method": name, "outside": at, "shown": 0.5, "shown_gain": 0.0, "shown_interval": (0, 0)}
        for name, at in names.items()
    ]
    curves(lines, "outside", "shown", tmp_path / "curves.png")
    found = {bars.get_label(): list(bars[0].get_xdata()) for bars in drawn[0].axes[0].containers}
    assert found == {
        "same-seed": [20.0], "p2p": [30.0, 35.0], "p2p (usual)": [33.0], "p2p+auto": [40.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "repaint"], "'repaint': choose from recolour, swap, add"),
        (["--kind", "swap,swap"], "names a kind twice"),
        (["--methods", "p3p"], "'p3p': choose from same-seed, sdedit"),
        (["--kind", "swap", "--methods", "dense"], "dense does nothing for swap"),
        (["--seeds", "0-7"], "it has no effect with --suite edits"),
        (["--suite", "pairs", "--pairs", "5"], "it has no effect with --suite pairs"),
    ],
)
def test_clear_errors(options, message, tmp_path):
    given = ["bench", "--out", str(tmp_path), "--suite", "edits", *options]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("\u2502", " ").split())
