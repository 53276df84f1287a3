"""The table of methods: suites, what is measured per picture, resuming, and the arithmetic of the
summary."""

import csv
import json
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from attncontrol.batch.generate import Picture
from attncontrol.batch.memory import peak_memory
from attncontrol.bench import compare
from attncontrol.bench.compare import row_of
from attncontrol.bench.prompts import things_of
from attncontrol.bench.rows import Row, append, read
from attncontrol.bench.suites import MEASURES
from attncontrol.bench.summary import markdown, summary
from attncontrol.bench.tasks import Task, tasks
from attncontrol.cli import app
from attncontrol.errors import ResultsError
from attncontrol.jobs import making, pictures
from attncontrol.jobs.guiding import objective
from attncontrol.jobs.pictures import Painted
from attncontrol.sprites.scenes import render, sample


def test_suites_are_276_tasks_each():
    for suite in MEASURES:
        found = tasks(suite)
        assert len(found) == len({task.prompt for task in found}) == 276
        assert tasks(suite, 12) == found[::12]
    for pair, task in zip(tasks("pairs"), tasks("triples"), strict=True):
        nouns = [thing.noun for thing in things_of(task.prompt)]
        assert len(set(nouns)) == 3
        assert nouns[:2] == [thing.noun for thing in things_of(pair.prompt)]
    for task in tasks("colors"):
        first, second = things_of(task.prompt)
        assert first.color
        assert second.color
        assert first.color != second.color
    for pair, task in zip(tasks("pairs"), tasks("four"), strict=True):
        nouns = [thing.noun for thing in things_of(task.prompt)]
        assert len(set(nouns)) == 4
        assert nouns[:2] == [thing.noun for thing in things_of(pair.prompt)]
    for task in tasks("attributes"):
        first, second, third = things_of(task.prompt)
        assert len({first.color, second.color, None}) == 3
        assert third.color is None
        assert len({first.noun, second.noun, third.noun}) == 3
    for task in tasks("layout"):
        (one, other) = task.boxes.values()
        assert list(task.boxes) == [thing.noun for thing in things_of(task.prompt)]
        assert min(one[2], other[2]) <= 0.5 <= max(one[0], other[0])
        for left, top, right, bottom in (one, other):
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            assert right - left == pytest.approx(bottom - top, abs=0.002)


def made(picture):
    return Picture("", 3, "plain", Image.fromarray(picture), {}, (), (), 1.5, 10.0)


def test_what_a_true_scene_scores():
    rng = np.random.default_rng(0)
    scene = next(
        scene for scene in iter(lambda: sample(rng, failures=False), None) if len(scene.named) == 2
    )
    picture, masks = render(scene)
    side = picture.shape[0]
    boxes = {}
    for thing, mask in zip(scene.named, masks, strict=True):
        rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
        boxes[thing.noun] = (
            columns[0] / side,
            rows[0] / side,
            (columns[-1] + 1) / side,
            (rows[-1] + 1) / side,
        )
    row = row_of("layout", Task(scene.caption, boxes), made(picture))
    assert (row.present, row.inside, row.seed, row.seconds, row.memory) == (1.0, 1.0, 3, 1.5, 10.0)
    assert row.iou > 0.8
    away = dict.fromkeys(boxes, (0.0, 0.0, 0.01, 0.01))
    elsewhere = row_of("layout", Task(scene.caption, away), made(picture))
    assert elsewhere.inside == 0
    assert elsewhere.iou < 0.05


def rows():
    made = []
    for method, hits, seconds in (("plain", [1, 0, 0, 0], 1.0), ("syngen", [1, 1, 1, 0], 2.5)):
        for (prompt, seed), hit in zip([("a", 0), ("a", 1), ("b", 0), ("b", 1)], hits, strict=True):
            made.append(
                Row(
                    "colors",
                    method,
                    prompt,
                    seed,
                    float(hit),
                    0.0,
                    float("nan"),
                    float("nan"),
                    0.9,
                    seconds,
                    20 * seconds,
                )
            )
    return made


def test_the_peak_of_memory_is_seen():
    with peak_memory(torch.device("cpu")) as held:
        block = torch.ones(64 * 2**18)  # 64 MiB
        del block
    assert 60 < held[0] < 80


def test_summary_by_hand():
    plain, guided = summary(rows())
    assert (plain["present"], plain["present_gain"], plain["time_ratio"]) == (0.25, 0.0, 1.0)
    assert (guided["present"], guided["present_gain"], guided["n"], guided["time_ratio"]) == (
        0.75,
        0.5,
        4,
        2.5,
    )
    assert guided["present_interval"] == [0.5, 0.5]
    assert markdown([plain, guided]).splitlines()[-1] == (
        "| syngen | 4 | 75.0 (+50.0; 50 to 50) | 0.0 (+0.0; 0 to 0) | 90.0 (+0.0; 0 to 0) "
        "| 2.5 | 2.5 |"
    )


def test_schedules_of_methods_may_be_replaced(tmp_path, monkeypatch):
    seen = {}

    def paint(_, rows):
        for k, row in enumerate(rows):
            seen[row.method] = objective([row])[1]
            yield Painted(row, Image.new("RGB", (128, 128)), len(rows), k, (), (), 1.0, None)

    monkeypatch.setattr(making, "opened", lambda *_: None)
    monkeypatch.setattr(making, "paint", paint)
    asked = partial(compare.of_suite, "colors", every=276, step_sizes={"ebama": 3.0})
    both = ["conform", "ebama"]
    compare.run(asked(both, [0]), tmp_path / "a")
    assert (seen["conform"].step_size, seen["conform"].max_refinements) == (None, None)
    compare.run(asked(both, [0], refinements=0), tmp_path / "b")
    assert {
        name: (of.step_size, of.max_refinements) for name, of in seen.items() if name != "plain"
    } == {
        "conform": (None, 0),
        "ebama": (3.0, 0),
    }
    for seed in (0, 1):  # all of them made, or not
        with pytest.raises(ResultsError, match=r"made with other settings.*colors-conform"):
            compare.run(asked(["conform"], [seed]), tmp_path / "b")
    assert len(compare.run(asked(["conform"], [1], refinements=0), tmp_path / "b")) == 2
    assert len(read(tmp_path / "b" / "pictures.csv")) == 5  # those of before stay
    monkeypatch.setattr(making, "paint", None)
    with pytest.raises(ResultsError, match="no picture of plain could be made: TypeError"):
        compare.run(asked(["conform"], [1]), tmp_path / "c")


def reds(images, items):
    """A score: how red, and the seed on top."""
    pairs = zip(images, items, strict=True)
    return [np.asarray(image)[..., 0].mean() / 255 + item.seed for image, item in pairs]


def test_own_prompts_models_and_scores(model, tmp_path, monkeypatch):
    """From text and from lines with words and boxes; none is scored twice."""
    monkeypatch.chdir(Path(__file__).parents[1])
    (tmp_path / "a.txt").write_text("# mine\na cat and a dog\n\na frog and a hat\n")
    rows = [{"prompt": "a cat and a frog", "words": "cat,frog",
             "boxes": {"cat": [0, 0, 0.5, 1]}}]  # fmt: skip
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = f"{__name__}:reds"
    given = ["bench", "--model", model, "--seeds", "0,1", "--score", own, "--json"]

    def bench(file, methods, out):
        line = [*given, "--prompts", tmp_path / file, "--methods", methods, "--out", tmp_path / out]
        result = CliRunner().invoke(app, [*map(str, line)])
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    monkeypatch.setattr(making, "opened", cache(making.opened))
    monkeypatch.setattr(pictures, "call_of", lambda *_: {"num_inference_steps": 1})
    plain, guided = lines = bench("a.txt", "conform", "a")
    assert [(line["method"], line["n"]) for line in lines] == [("plain", 4), ("conform", 4)]
    assert 0.5 < plain[own] < 1.5
    assert guided[f"{own}_gain"] == pytest.approx(guided[own] - plain[own], abs=2e-4)
    table = (tmp_path / "a" / "prompts.md").read_text().splitlines()
    assert table[0] == f"| method | n | {own} | time | memory |"
    assert f"| plain | 4 | {plain[own]:.3f} |" in table[2]
    with (tmp_path / "a" / "prompts.csv").open() as file:
        told = list(csv.DictReader(file))
    assert (len(told), [*told[0]][4:]) == (8, [own, "seconds", "memory"])
    assert np.mean([float(row[own]) for row in told[:4]]) == pytest.approx(plain[own], abs=1e-4)
    kept = (tmp_path / "a" / "job" / "scores.jsonl").read_text()
    assert kept.count("[") == 8
    assert bench("a.txt", "conform", "a") == lines
    assert (tmp_path / "a" / "job" / "scores.jsonl").read_text() == kept
    found = bench("b.jsonl", "boxdiff,conform", "b")
    assert [line["method"] for line in found] == ["plain", "boxdiff", "conform"]


def test_what_own_prompts_need(model, tmp_path):
    (tmp_path / "a.txt").write_text("a zebra\n#no\n")
    (tmp_path / "b.txt").write_text("a zebra\n")
    (tmp_path / "c.jsonl").write_text('{"prompt": "a cat", "method": "auto"}')
    for arguments, said in [
        (["a.txt"], "line 2: a comment begins with '# '"),
        (["b.txt"], "'a zebra' names nothing that the bundled models know: say by which --score"),
        (["b.txt", "--methods", "boxdiff"], "boxdiff needs it"),
        (["c.jsonl"], "'a cat', seed 0, is made 1 times by 2 methods"),
        (["b.txt", "--suite", "colors"], "--suite: it has no effect with --prompts"),
        (["b.txt", "--model", model, "--score", "present"], "score 'present' knows pictures of"),
        (["b.txt", "--model", model], "can be scored for sprites, sprites-sd3"),
    ]:
        file, *rest = arguments
        methods = [] if "--methods" in rest else ["--methods", "syngen"]
        line = ["bench", "--prompts", str(tmp_path / file), *methods, *rest]
        result = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "out")])
        assert result.exit_code == 2, arguments
        assert said in " ".join(result.stderr.replace("\u2502", " ").split())
        assert not (tmp_path / "out").exists()


def test_bench_resumes(tmp_path):
    options = [
        "bench",
        "--suite",
        "layout",
        "--methods",
        "boxdiff",
        "--every",
        "276",
        "--seeds",
        "0-1",
        "--json",
    ]
    options += ["--out", str(tmp_path)]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.stderr
    lines = json.loads(result.stdout)
    assert [(line["method"], line["n"]) for line in lines] == [("plain", 2), ("boxdiff", 2)]
    made = read(tmp_path / "pictures.csv")
    assert len(made) == 4
    kept = (tmp_path / "pictures.csv").read_text().splitlines()[:-1]
    (tmp_path / "pictures.csv").write_text("\n".join(kept) + "\n")
    again = CliRunner().invoke(app, options)
    for one, other in zip(made, read(tmp_path / "pictures.csv"), strict=True):
        assert (one.method, one.seed, one.present) == (other.method, other.seed, other.present)
        assert one.iou == pytest.approx(other.iou, abs=0.02)
    assert [line["method"] for line in json.loads(again.stdout)] == ["plain", "boxdiff"]
    assert {"layout.md", "layout.json", "layout.png", "pictures.csv", "settings", "job"} == {
        path.name for path in tmp_path.iterdir()
    }


def test_rows_that_are_cut_anywhere_are_lost_alone(tmp_path):
    file = tmp_path / "pictures.csv"
    whole = rows()
    append(file, whole)
    data = file.read_bytes()
    assert len(read(file)) == len(whole)
    for cut in range(len(data)):
        file.write_bytes(data[:cut])
        kept = read(file)
        assert [repr(row) for row in kept] == [repr(row) for row in whole[: len(kept)]]
        assert len(kept) == max(data[:cut].count(b"\n") - 1, 0)
        append(file, whole[len(kept) :])
        assert [repr(row) for row in read(file)] == [repr(row) for row in whole]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "nothing"], "choose from pairs, triples, colors, layout"),
        (["--suite", "layout", "--methods", "syngen"], "choose from attention-refocusing"),
        (["--model", "elsewhere"], "can be scored for sprites"),
        (["--dtype", "float8"], "choose from float32, float16, bfloat16"),
    ],
)
def test_clear_errors(options, message, tmp_path):
    result = CliRunner().invoke(app, ["bench", "--out", str(tmp_path), *options])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("\u2502", " ").split())
