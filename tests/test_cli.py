import json
import shlex
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import attncontrol
from attncontrol import sprites
from attncontrol.batch.options import load_pipeline, parse_seeds
from attncontrol.batch.results import read_lines
from attncontrol.cli import app
from attncontrol.export.names import name_of

runner = CliRunner()


def invoke(*args):
    result = runner.invoke(app, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback is never an answer
    return result.exit_code, result.stdout, result.stderr


def test_generate_writes_pictures_maps_grid_and_report(model, tmp_path):
    code, out, _ = invoke(
        "generate", "a cat and a frog", "--model", model, "--compare", "--seeds", "0-1,5",
        "--steps", 3, "--out", tmp_path, "--height", 64, "--width", 96, "--json", "--batch", 2,
    )  # fmt: skip
    assert code == 0
    report = json.loads(out)
    assert report == json.loads((tmp_path / "run.json").read_text())
    assert report["words"] == {"a cat and a frog": ["cat", "frog"]}
    assert report["settings"]["seeds"] == [0, 1, 5]
    assert [(row["method"], row["seed"]) for row in report["pictures"]] == [
        (method, seed) for method in ("plain", "attend-and-excite") for seed in (0, 1, 5)
    ]
    for row in report["pictures"]:
        with Image.open(tmp_path / row["file"]) as picture:
            assert picture.size == (96, 64)
        assert (tmp_path / row["maps_file"]).exists()
        # steps 0 (guided) and 1 (a refinement threshold at 0.4 of the run)
        assert len(row["losses"]) == (2 if row["method"] == "attend-and-excite" else 0)
        assert row["compare_file"].startswith("a-cat-and-a-frog-")
        assert (tmp_path / row["compare_file"]).exists()


def test_a_seed_does_not_depend_on_the_batch(model, tmp_path):
    for folder, batch in (("one", 1), ("all", 3)):
        invoke(
            "generate",
            "a cat",
            "--model",
            model,
            "--seeds",
            "0-2",
            "--steps",
            2,
            "--out",
            tmp_path / folder,
            "--batch",
            batch,
        )
    for seed in range(3):
        name = name_of("a cat", "attend-and-excite", seed)
        with (
            Image.open(tmp_path / "one" / name) as first,
            Image.open(tmp_path / "all" / name) as second,
        ):
            difference = max(
                abs(a - b) for a, b in zip(first.tobytes(), second.tobytes(), strict=True)
            )
        assert difference <= 1


def test_prompt_files(model, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# comment\na cat\n\na red frog\n")
    code, out, _ = invoke(
        "generate",
        "--prompts",
        prompts,
        "--model",
        model,
        "--seeds",
        0,
        "--steps",
        2,
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert code == 0
    assert json.loads(out)["words"] == {"a cat": ["cat"], "a red frog": ["frog"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a cat", "--words", "frog"], "'frog' is not in the prompt 'a cat'"),
        (["very quickly"], "no noun was found"),
        (["a cat", "--model", "no/such/folder"], "no folder of that name, and it is no hub id"),
        (["a cat", "--method", "magic"], "choose from auto, attend-and-excite, syngen"),
        (["a cat", "--seeds", "3-1"], "write seeds as 0-3,8"),
        (["a cat", "--prompts", __file__], "give either a prompt or --prompts FILE"),
        ([], "give either a prompt or --prompts FILE"),
    ],
)
def test_bad_input_ends_with_a_clear_message(model, tmp_path, arguments, message):
    given = arguments if "--model" in arguments else [*arguments, "--model", model]
    code, _, err = invoke("generate", *given, "--out", tmp_path, "--steps", 2)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_seeds():
    assert parse_seeds("0-3,8") == [0, 1, 2, 3, 8]


def test_parse():
    code, out, _ = invoke("parse", "--json", "a red car and a cat, 8k")
    assert code == 0
    assert json.loads(out) == {
        "subjects": [
            {"noun": "car", "modifiers": ["red"], "span": [2, 9]},
            {"noun": "cat", "modifiers": [], "span": [16, 19]},
        ],
        "left_out": [{"text": "8k", "span": [20, 23], "reason": "a tag"}],
    }
    code, _, err = invoke("parse", "a photo of a cat")
    assert code == 0
    assert "left out: photo (the picture itself)" in err
    code, _, err = invoke("parse", "a dog that is red")
    assert code == 0
    assert "dog that is red" in err
    code, _, err = invoke("parse", "very blue")
    assert code == 2
    assert "no noun was found in 'very blue'" in err
    code, _, err = invoke("record", "very blue")
    assert code == 2
    assert "no noun was found in the prompt 'very blue'" in " ".join(err.split())


def test_sites_are_ranked(model):
    code, out, _ = invoke("sites", "--score", "--scenes", 2, "--heads", "--model", model, "--json")
    assert code == 0
    rows = json.loads(out)
    assert {row["head"] for row in rows} == {None, 0, 1, 2, 3}
    assert all(row["n"] == 4 for row in rows)


def test_tokens_and_sites(model):
    code, out, _ = invoke("tokens", "a turtle", "--model", model, "--json")
    assert code == 0
    assert [row["text"] for row in json.loads(out)[1:4]] == ["a", "tur", "tle"]
    code, out, _ = invoke("sites", "--model", model, "--json")
    assert code == 0
    sites = json.loads(out)
    assert len(sites) == 20
    assert {(site["kind"], site["stride"]) for site in sites} == {
        (kind, stride) for kind in ("self", "cross") for stride in (1, 2, 4)
    }


def test_methods_boxes_and_groups(model, tmp_path):
    common = ["--model", model, "--seeds", 0, "--steps", 2, "--out", tmp_path / "boxes", "--json"]
    words = ["--method", "syngen", "--words", "red+cat,frog", *common, "--out", tmp_path / "words"]
    code, out, _ = invoke("generate", "a red cat and a frog", *words)
    assert code == 0
    report = json.loads(out)
    assert report["words"] == {"a red cat and a frog": ["cat", "frog"]}
    assert len(report["pictures"][0]["losses"]) == 1
    code, out, _ = invoke(
        "generate",
        "a cat and a frog",
        "--method",
        "boxdiff",
        "--box",
        "cat=0,0,0.5,1",
        "--box",
        "frog=0.5,0.25,1,0.75",
        *common,
    )
    assert code == 0
    assert json.loads(out)["words"] == {"a cat and a frog": ["cat", "frog"]}
    assert json.loads(out)["settings"]["boxes"] == {
        "cat": [0, 0, 0.5, 1],
        "frog": [0.5, 0.25, 1, 0.75],
    }
    for options, message in (
        (["--method", "boxdiff"], "need it"),
        (["--box", "cat=0,0,1,1"], "need it"),
        (["--method", "boxdiff", "--box", "cat=0,0,1"], "fractions of the picture"),
        (["--method", "nothing"], "choose from"),
    ):
        code, _, err = invoke("generate", "a cat", *options, *common)
        assert code == 2
        assert message in " ".join(err.replace("\u2502", " ").split())


def test_heads_are_searched_drawn_and_used(model, tmp_path):
    options = (
        "--model",
        model,
        "--seeds",
        "0-1",
        "--out",
        tmp_path / "heads",
        "--layers",
        "mid_block,up_blocks.0",
        "--top-k",
        2,
    )
    code, out, error = invoke(
        "heads", "search", "a cat", "--objective", "redness", *options, "--json"
    )
    assert code == 0, error
    found = json.loads(out)
    assert found == json.loads((tmp_path / "heads" / "heads.json").read_text())
    scores = {(name, head): score for name, head, score, _ in found["rounds"][0]["scores"]}
    assert len(scores) == 4 + 2 * 4
    assert [tuple(head) for head in found["heads"]] == sorted(
        scores, key=lambda head: -scores[head]
    )[:2]
    with Image.open(tmp_path / "heads" / "scores.png") as picture:
        assert min(picture.size) > 200
    made = list(read_lines(tmp_path / "heads" / "scores.jsonl"))
    assert len(made) == 2 * (1 + len(scores))  # of plain pictures too
    assert found["rounds"][0]["without"] == pytest.approx(
        np.mean([score for key, _, _, score in made if not key])
    )
    again = invoke("heads", "search", "a cat", "--objective", "redness", *options, "--json")
    assert json.loads(again[1]) == found
    assert list(read_lines(tmp_path / "heads" / "scores.jsonl")) == made  # nothing was made twice
    code, _, error = invoke("heads", "search", "a cat", "--objective", "size", *options)
    assert code == 2
    assert "made with other settings" in " ".join(error.replace("\u2502", " ").split())
    generate = (
        "generate",
        "a cat",
        "--model",
        model,
        "--seeds",
        "0",
        "--steps",
        3,
        "--method",
        "plain",
        "--compare",
    )
    code, out, error = invoke(
        *generate, "--heads", tmp_path / "heads" / "heads.json", "--out", tmp_path / "out", "--json"
    )
    assert code == 0, error
    report = json.loads(out)
    assert report["settings"]["heads"] == found["heads"]
    assert [row["method"] for row in report["pictures"]] == ["plain", "heads"]
    plain, weakened = (
        np.asarray(Image.open(tmp_path / "out" / row["file"])) for row in report["pictures"]
    )
    assert (plain != weakened).any()


def test_results_are_there_without_matplotlib(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    options = (
        "--model",
        model,
        "--seeds",
        "0",
        "--layers",
        "mid_block",
        "--objective",
        "redness",
        "--out",
        tmp_path,
    )
    code, _, error = invoke("heads", "search", "a cat", *options)
    assert code == 0, error
    assert "No chart: charts are drawn with matplotlib: pip install attncontrol[bench]" in " ".join(
        error.split()
    )
    assert (tmp_path / "heads.json").exists()
    assert not (tmp_path / "scores.png").exists()


def test_heads_strip(model, tmp_path):
    name = "mid_block.attentions.0.transformer_blocks.0.attn1"
    (tmp_path / "heads.json").write_text(json.dumps({"heads": [[name, 0], [name, 3]]}))
    options = (
        "--heads",
        tmp_path / "heads.json",
        "--model",
        model,
        "--steps",
        2,
        "--out",
        tmp_path / "strip.png",
    )
    code, out, error = invoke(
        "heads", "strip", "a car", "--seeds", "3-4", "--u", "0,1", *options, "--json"
    )
    assert code == 0, error
    plain, weakened = json.loads(out)
    assert (plain["u"], plain["shift"], weakened["u"], len(weakened["scores"])) == (0, 0, 1, 2)
    spread = np.std(plain["scores"], ddof=1)
    assert weakened["shift"] == pytest.approx(
        (np.mean(weakened["scores"]) - np.mean(plain["scores"])) / spread
    )
    with Image.open(tmp_path / "strip.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 2 * 192
    assert pixels.shape[0] > 2 * 192  # both seeds
    assert (pixels[80:240, 80:240] != 255).any()  # a picture, not the ground
    code, _, error = invoke("heads", "strip", "a car", "--seeds", "3", *options)
    assert code == 2
    assert "at least two seeds" in " ".join(error.replace("\u2502", " ").split())


def test_heads_search_says_what_is_wrong(model):
    code, _, error = invoke("heads", "search", "a cat", "--model", model, "--objective", "beauty")
    assert code == 2
    assert "quality, shape, redness, size" in " ".join(error.replace("\u2502", " ").split())


def test_the_report_repeats_the_run(model, tmp_path):
    arguments = [
        "generate", "a red cat [/b]", "--model", model, "--seeds", "0-1", "--steps", 2,
        "--method", "syngen", "--words", "red+cat", "--negative", "a frog", "--batch", 2,
        "--out", tmp_path, "--step-size", 2,
    ]  # fmt: skip
    code, _, error = invoke(*arguments)
    assert code == 0, error
    assert "a red cat [/b]" in error  # no markup
    report = json.loads((tmp_path / "run.json").read_text())
    assert shlex.split(report["command"]) == ["attncontrol", *map(str, arguments)]
    settings = report["settings"]
    assert (settings["method"], settings["batch"], settings["step_size"]) == ("syngen", 2, 2)
    assert settings["words"] == [["red", "cat"]]
    assert settings["call"] == {"num_inference_steps": 2, "negative_prompt": "a frog"}
    assert settings["scheduler"]["_class_name"] == "DDIMScheduler"
    assert report["versions"]["attncontrol"] == attncontrol.__version__


def test_a_step_may_be_a_share_and_run_json_repeats_it(model, tmp_path):
    size = "--model", model, "--seeds", "1", "--steps", 2, "--height", 64, "--width", 64
    line = "generate", "a red cat", "--method", "syngen", "--step-size", "6%"
    code, _, error = invoke(*line, *size, "--out", tmp_path / "one")
    assert code == 0, error
    settings = json.loads((tmp_path / "one/run.json").read_text())["settings"]
    assert settings["step_size"] == "6%"
    assert settings["parameters"]["descent"]["step_size"] == "6 %"
    again = "generate", "--from", tmp_path / "one/run.json", "--out", tmp_path / "two"
    assert invoke(*again)[0] == 0
    one, two = (next((tmp_path / name).glob("*.png")).read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_negative_prompt_is_that_of_the_pipeline(tmp_path):
    """On the default model, which takes one for each prompt."""
    common = ("--seeds", "3-4", "--steps", 2, "--method", "plain", "--negative", "red")
    code, _, error = invoke("generate", "a cat", *common, "--out", tmp_path)
    assert code == 0, error
    pipe = load_pipeline("sprites")
    pipe.set_progress_bar_config(disable=True)
    options = sprites.call("sprites") | {"num_inference_steps": 2}
    for seed in (3, 4):
        generator = torch.Generator().manual_seed(seed)
        image = pipe("a cat", negative_prompt="red", generator=generator, **options).images[0]
        with Image.open(tmp_path / name_of("a cat", "plain", seed)) as picture:
            made, expected = (np.asarray(each).astype(int) for each in (picture, image))
        assert abs(made - expected).max() <= 1


def test_a_record_is_of_the_call_that_was_asked_for(model, tmp_path):
    file = tmp_path / "new" / "record.safetensors"
    arguments = ("--model", model, "--steps", 2, "--height", 64, "--width", 96, "--guidance", 3)
    boxes = ("--method", "boxdiff", "--box", "cat=0,0,0.5,1")
    code, out, error = invoke(
        "record", "a cat", *arguments, *boxes, "--dtype", "bfloat16", "--out", file, "--json"
    )
    assert code == 0, error
    assert json.loads(out) == {
        "record": str(file), "bytes": file.stat().st_size, "words": ["cat"], "steps": 2,
    }  # fmt: skip
    maps = attncontrol.load(file)
    assert maps.pictures[0].size == (96, 64)
    assert maps.about["guidance_scale"] == 3
    code, _, error = invoke("maps", __file__, "--prompt", "a cat", "--model", model)
    assert code == 2
    assert "is no picture that can be read" in " ".join(error.replace("\u2502", " ").split())


def test_auto_chooses_a_method_and_run_json_repeats_it(model, tmp_path):
    size = "--model", model, "--seeds", "1", "--steps", 2, "--height", 64, "--width", 64
    line = "edit", "a red cat and a frog", "--to", "a blue cat and a frog", "--method", "auto"
    code, _, error = invoke(*line, *size, "--out", tmp_path / "one")
    assert code == 0, error
    settings = json.loads((tmp_path / "one/run.json").read_text())["settings"]
    assert settings["method"] == "p2p@0.6+auto"
    assert settings["chosen"].startswith(
        "recolour (red cat -> blue cat) by p2p@0.6+auto: right in "
    )
    assert settings["chosen"] in " ".join(error.split())
    again = "--from", tmp_path / "one/run.json", "--out", tmp_path / "two"
    code, _, error = invoke("edit", *again)
    assert code == 0, error
    files = sorted(path.name for path in (tmp_path / "one").glob("*.png"))
    assert len(files) == 2
    assert all(
        np.array_equal(*(Image.open(tmp_path / run / name) for run in ("one", "two")))
        for name in files
    )
    code, _, error = invoke(*line[:3], "A red cat  and a frog", *line[4:], *size)
    assert code == 2
    said = " ".join(error.replace("\u2502", " ").split())
    assert "it says what PROMPT says, 'a red cat and a frog', so auto would change nothing" in said


def test_the_style_of_the_same_prompt_at_another_scale_is_a_change(model, tmp_path):
    code, out, error = invoke(
        "edit", "a cat", "--to", "a cat", "--method", "style@0.5", "--seeds", "1", "--steps", 3,
        "--model", model, "--out", tmp_path, "--json",
    )  # fmt: skip
    assert code == 0, error
    files = [row["file"] for row in json.loads(out)["pictures"]]
    source, edited = (np.asarray(Image.open(tmp_path / file)) for file in files)
    assert (source != edited).any()


@pytest.mark.parametrize("method", ["p2p", "masactrl"])
def test_edits_keep_their_source(model, method, tmp_path):
    code, out, error = invoke(
        "edit", "a cat", "--to", "a dog", "--method", method, "--seeds", "1,4", "--steps", 3,
        "--model", model, "--out", tmp_path, "--compare", "--json",
    )  # fmt: skip
    assert code == 0, error
    report = json.loads(out)
    assert report == json.loads((tmp_path / "run.json").read_text())
    assert [(row["role"], row["prompt"], row["seed"]) for row in report["pictures"]] == [
        (role, prompt, seed)
        for role, prompt in (("source", "a cat"), (method, "a dog"), ("plain", "a dog"))
        for seed in (1, 4)
    ]
    source, edited, plain = (
        np.asarray(Image.open(tmp_path / report["pictures"][i]["file"])) for i in (0, 2, 4)
    )
    pipe = load_pipeline(model)
    generator = torch.Generator().manual_seed(1)
    alone = pipe("a cat", generator=generator, num_inference_steps=3).images[0]
    assert abs(source.astype(int) - np.asarray(alone).astype(int)).max() <= 1
    assert (edited != plain).any()
    assert (edited != source).any()
    with Image.open(tmp_path / report["pictures"][0]["compare_file"]) as sheet:
        assert sheet.height == 60 + 3 * 198
