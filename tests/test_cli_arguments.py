"""Mistakes on the command line: exit code 2 and one message that says what to write."""

import json
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline
from typer.testing import CliRunner

from attncontrol.batch import pipelines
from attncontrol.batch.options import load_pipeline
from attncontrol.batch.pipelines import call_of
from attncontrol.cli import app, checks
from attncontrol.errors import ModelError, SettingError

BROKEN_HEADS = [
    "", "{", "[]", "null", '{"heads": []}', '{"heads": [1]}', '{"heads": [["a", -1]]}',
    '{"heads": [["a", 1.5]]}', '{"heads": [["a", true]]}', '{"heads": [["a", 1], ["a", 1]]}',
    "[" * 100_000,
]  # fmt: skip
GENERATE, RECORD = ["generate", "a cat"], ["record", "a cat"]
EXPORT = ["export", __file__]
PLAIN = [*GENERATE, "--method", "plain"]


def said(*arguments):
    """Of a command that must fail, without frames and line breaks."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    return " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "a", "cat", "and", "a", "frog"], 'quote the prompt: "a cat and a frog"'),
        (["parse", "a", "cat"], 'quote the prompt: "a cat"'),
        (["generate", "  "], "the prompt is empty"),
        (["heads", "search", "a cat", ""], "the prompt is empty"),
        ([*GENERATE, "--method", "[/b]"], "'[/b]': choose from auto, attend-and-excite"),
        ([*RECORD, "--method", "boxdiff"], "boxdiff, need it"),
        ([*GENERATE, "--box", "cat=0,0,1,1"], "attend-and-excite takes no boxes"),
        ([*GENERATE, "--dtype", "int8"], "'int8': choose from float32, float16, bfloat16"),
        ([*RECORD, "--device", "GPU 1"], "write a device of torch"),
        ([*GENERATE, "--device", "cuda:99"], "SettingError: device 'cuda:99' cannot be used here"),
        ([*GENERATE, "--device", "tpux"], "SettingError: device 'tpux' cannot be used here"),
        ([*GENERATE, "--step-size", "nan"], "a step size is a finite number"),
        ([*RECORD, "--step-size", "-1"], "a step size is a finite number"),
        ([*RECORD, "--step-size", "six%"], "a share, such as 6%"),
        ([*GENERATE, "--guidance", "inf"], "inf is no number from 0 to 1000"),
        ([*GENERATE, "--steps", "1001"], "Invalid value for '--steps'"),
        ([*GENERATE, "--seeds", str(2**64)], "the largest seed is 18446744073709551615"),
        ([*RECORD, "--seed", str(2**64)], "Invalid value for '--seed'"),
        ([*GENERATE, "--height", "72", "--model", "sprites-sd3"], "draws multiples of 16 pixels"),
        ([*GENERATE, "--height", "16384"], "up to 8192"),
        ([*GENERATE, "--guidance", "-1"], "-1.0 is no number from 0 to 1000"),
        ([*GENERATE, "--u", "nan"], "nan is no number from 0 to 1"),
        ([*GENERATE, "--negative", "red", "--guidance", "1"], "give --guidance above 1"),
        ([*GENERATE, "--negative", "", "--guidance", "1"], "give --guidance above 1"),
        ([*GENERATE, "--negative", "a \ud800"], "a \\ud800: this is no text"),
        ([*GENERATE, "--seeds", "0-99999999999"], "100000000000 seeds; at most 1000000"),
        ([*GENERATE, "--seeds", "0-3,2"], "names seed 2 twice"),
        ([*GENERATE, "--words", "mouse"], "'mouse' is not in the prompt 'a cat'"),
        ([*GENERATE, "--method", "syngen:x"], "there is no module syngen"),
        ([*GENERATE, "--out", ""], "the path is empty"),
        ([*GENERATE, "--u", "0.5"], "--u: it has no effect with no --heads; leave it out"),
        ([*GENERATE, "--heads-scale", "0"], "--heads-scale: it has no effect with no --heads"),
        ([*PLAIN, "--step-size", "3"], "--step-size: it has no effect with --method plain"),
        (
            [*PLAIN, "--compare"],
            "--compare: it has no effect with --method plain without",
        ),
        ([*RECORD, "--step-size", "3"], "--step-size: it has no effect with --method plain"),
        (
            [*RECORD, "--uncond", "--guidance", "1"],
            "--uncond has no effect without",
        ),
        (["sites", "--heads"], "--heads: it has no effect with no --score"),
        (["sites", "--scenes", "3"], "--scenes: it has no effect with no --score"),
        (["parse", "a \x1b[31mcat"], "'a \\x1b[31mcat': prompts, names and paths hold no control"),
        ([*GENERATE, "--negative", "\x07"], "'\\x07': prompts, names and paths hold no control"),
        ([*GENERATE, "--out", "a.png"], "a.png: a folder is made, and this is the name of a file"),
        (["bench", "--out", "a.json"], "a.json: a folder is made, and this is the name of a file"),
        ([*RECORD, "--out", "r1.png"], "r1.png: a record ends in .safetensors, or is a folder"),
        ([*EXPORT, "--format", "csv", "--out", "q.npz"], "--format csv makes a name that ends in"),
        ([*EXPORT, "--format", "png", "--out", "q.zarr"], "q.zarr: --format png makes a folder"),
        ([*EXPORT, "--format", "zarr", "--out", "q.csv"], "q.csv: --format zarr makes a name that"),
        ([*EXPORT, "--out", "q.txt"], "q.txt: write a name that ends in .npz, .zarr or .csv, or"),
        (["inspect", __file__, "--out", "q.txt"], "q.txt: a page ends in .html"),
        ([*RECORD, "--words", "cat,"], "write names separated by commas"),
        ([*RECORD, "--method", "boxdiff", "--box", "dog=0,0,1,1"], "'dog' is not in the prompt"),
        ([*RECORD, "--height", "65", "--width", "64"], "65 is no multiple of 8"),
        ([*GENERATE, "--words", "cat,"], "write words separated by commas"),
        ([*RECORD, "--keep", "x"], "x: choose from step, head"),
        ([*RECORD, "--encoding", "int8"], "choose from float32, float16, bfloat16, sqrt8"),
        (["bench", "--suite", "x"], "choose from pairs, triples, colors, layout"),
        (["bench", "--methods", "boxdiff"], "for the suite pairs choose from auto"),
        (
            ["bench", "--model", "x"],
            "pictures can be scored for sprites, sprites-sd3, sprites-flux, sprites-pixart",
        ),
        (["bench", "--step-size", "ebama"], "a step size is written method=number"),
        (["bench", "--step-size", "ebama=nan"], "a step size is a finite number"),
        (["bench", "--step-size", "ebama=-6%"], "a share, such as 6%"),
        (["bench", "--step-size", "ebma=1"], "'ebma' is none of the methods"),
        (["heads", "search", "a cat", "--kind", "x"], "choose from self, joint, cross"),
        (["edit", "a cat", "--to", "a dog", "--method", "x"], "choose from p2p, replace, blend"),
        (["edit", "a cat", "--to", "a dog", "--method", "p2p@2"], "a share between 0 and 1"),
        (["edit", "a cat"], "say what the edited picture shall show: --to PROMPT"),
        (["edit", "a cat", "--remove", "cat"], "write the prompt without it yourself, as --to"),
        (["edit", "a cat", "--remove", "dog"], "'dog' is not in the prompt 'a cat'"),
        (["edit", "a cat", "--to", "a dog", "--method", "auto+auto"], "auto stands once beside"),
        (["edit", "a cat", "--region", "a cat=0,0,2,1"], "these look like pixels"),
        (["edit", "a cat", "--to", ""], "the prompt is empty"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[:30],
)
def test_messages(arguments, message):
    assert message in said(*arguments)


SAME = "it says what PROMPT says, 'a cat', so {} would change nothing: say what the edited picture"
A_CAT, TWO = ["edit", "a cat"], ["edit", "a cat and a cat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*A_CAT, "--move", "cat=0,0"], "'cat=0,0': nothing would move; write how far"),
        ([*A_CAT, "--move", "cat=1,0"], "write word=right,down in widths and heights of the"),
        ([*A_CAT, "--move", "cat=nan,0"], "write word=right,down"),
        ([*A_CAT, "--move", "dog=0.3,0"], "--move: 'dog' is not in the prompt 'a cat'; its"),
        ([*TWO, "--move", "cat#3=0.3,0"], "--move: 'cat#3': the prompt 'a cat and a cat' has 2"),
        ([*A_CAT, "--remove", "dog", "--to", "x"], "--remove: 'dog' is not in the prompt 'a cat'"),
        ([*A_CAT, "--remove", "dog"], "'dog' is not in the prompt 'a cat'; its words are: a, cat"),
        ([*TWO, "--remove", "cat"], "'cat' is 2 times in 'a cat and a cat': say which, cat#1"),
        ([*A_CAT, "--remove", "cat", "--method", "p2p"], "--method: it has no effect with --rem"),
        ([*A_CAT, "--move", "cat=0.3,0", "--method", "p2p"], "--method: it has no effect with --m"),
        (
            [*A_CAT, "--remove", "cat", "--region", "x=0,0,1,1"],
            "--remove: an edit makes one change, and --region is another: leave one of them out",
        ),
        ([*A_CAT, "--to", "a cat"], SAME.format("p2p")),
        ([*A_CAT, "--to", " a  cat", "--method", "layout+blend"], SAME.format("layout+blend")),
        ([*A_CAT, "--to", "a cat", "--method", "p2p+auto"], SAME.format("p2p+auto")),
        ([*A_CAT, "--to", "a cat", "--method", "style"], SAME.format("style")),
        ([*A_CAT, "--to", "A cat", "--method", "auto"], SAME.format("auto")),
    ],
)
def test_edits_that_cannot_be_are_refused_before_a_model(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setattr(pipelines, "opened", lambda *_: pytest.fail("it was loaded"))
    out = tmp_path / "out"
    shown = said(*arguments, "--out", out)
    assert message in shown
    assert "as --to PROMPT" not in shown
    assert not out.exists()


BUNDLED = (
    " Use sprites, sprites-sd3, sprites-flux, sprites-pixart (bundled), a local pipeline folder or "
    "a hub id"
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sprites-sd2", "there is no such model or folder; did you mean sprites-sd3?" + BUNDLED),
        ("Sprite", "there is no such model or folder; did you mean sprites?" + BUNDLED),
        ("no/such/folder", "there is no folder of that name, and it is no hub id, owner/name."),
        (__file__, "this is a file; a model is a folder with model_index.json." + BUNDLED),
        (".ci", "this folder is no diffusers pipeline: it has no model_index.json." + BUNDLED),
        (" ", "the name is empty." + BUNDLED),
    ],
)
@pytest.mark.parametrize("line", [GENERATE, RECORD, ["edit", "a cat", "--to", "a dog"]])
def test_names_of_no_model_are_refused_at_once(line, name, message, monkeypatch, tmp_path):
    monkeypatch.setattr(pipelines, "opened", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.chdir(Path(__file__).parents[1])
    shown = said(*line, "--model", name, "--out", tmp_path / "out").replace(" ", "")
    assert f"'--model': {name!r}: {message}".replace(" ", "") in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["WanPipeline", "LTXImageToVideoPipeline"])
def test_pipelines_of_videos_are_refused_before_they_are_loaded(name, monkeypatch, tmp_path):
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("load"))
    model, job, out = tmp_path / "model", tmp_path / "job.jsonl", tmp_path / "out"
    model.mkdir()
    (model / "model_index.json").write_text(json.dumps({"_class_name": name}))
    job.write_text(json.dumps({"prompt": "a cat", "model": str(model)}))
    for line in (GENERATE, RECORD, ["edit", "a cat", "--to", "a dog"], ["batch", job]):
        given = [] if line[0] == "batch" else ["--model", model]
        shown = said(*line, *given, "--out", out)
        assert f"{name}, which makes videos; commands and jobs make pictures" in shown
        assert not out.exists()


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        ("OSError", "Cannot load it"),
        ("RepositoryNotFoundError", "the hub has no such model, or it is private"),
        ("OfflineModeIsEnabled", "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_model_that_cannot_be_downloaded_says_so_in_a_clause(cause, message, monkeypatch):
    def fails(*_, **__):
        raise OSError("Cannot load it. Please check the root cause.") from type(
            cause, (OSError,), {}
        )("pass local_files_only=False")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fails)
    with pytest.raises(ModelError) as told:
        load_pipeline("nowhere/folder")
    assert str(told.value) == (
        "'nowhere/folder': there is no folder of that name, and it could not be downloaded: "
        f"{message}.{BUNDLED}"
    )


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("cat=0,0,64,64", "these look like pixels; write fractions of the picture, 0 to 1"),
        ("cat=0.5,0,0.5,1", "left < right and top < bottom must lie between 0 and 1"),
        ("cat=0,0,nan,1", "left < right and top < bottom must lie between 0 and 1"),
        ("cat=0,-1,1,1", "left < right and top < bottom must lie between 0 and 1"),
        ("cat=a,b,c,d", "write word=left,top,right,bottom in fractions of the picture"),
        ("0,0,1,1", "it names no word"),
    ],
)
def test_boxes(box, message):
    assert f"{box}: {message}" in said(*GENERATE, "--method", "boxdiff", "--box", box)


def test_values():
    assert checks.boxes(["red cat=0,0.2,.5,1"]) == {"red cat": (0.0, 0.2, 0.5, 1.0)}
    assert checks.groups("red+car, cat") == [["red", "car"], ["cat"]]
    assert checks.groups(None) is None
    assert checks.prompts("# a sign", None) == ["# a sign"]


def test_prompt_files(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbfa cat\r\n# a comment\r\n\r\na dog\r\n")
    assert checks.prompts(None, file) == ["a cat", "a dog"]
    file.write_bytes("a cat\na dog".encode("utf-16"))
    assert checks.prompts(None, file) == ["a cat", "a dog"]
    for content, message in (
        (b"\xff\x00\x80", "cannot be read as UTF-8 text"),
        (b"a cat\n\x00\x01\n", "line 2, '\\x00\\x01': this is no text"),
        (b"\n# only this\n", "holds no prompt"),
        (b"a cat\n#1 dog\n", "line 2, '#1 dog': a comment begins with '# '"),
        (b"a cat " * 10_000, "line 1, 'a cat a cat"),
    ):
        file.write_bytes(content)
        assert message in said("generate", "--prompts", file)


def test_output_paths(tmp_path):
    file = tmp_path / "a [red]file"
    file.write_text("")
    for out, message in (
        (file, "is a file; give a folder"),
        (file / "deeper", "cannot be made"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        assert message in said(*GENERATE, "--out", out)
    (tmp_path / "folder.safetensors").mkdir()
    assert "is a folder; give a file" in said(
        "maps", __file__, "--prompt", "a cat", "--out", tmp_path / "folder.safetensors"
    )
    heads = tmp_path / "heads.json"
    for content in BROKEN_HEADS:
        heads.write_text(content)
        assert "Invalid value for '--heads'" in said(
            *GENERATE, "--heads", heads, "--out", tmp_path / "out"
        )
    heads.write_text('{"heads": [["mid_block", 0]]}')
    assert "a picture ends in .png, .jpg or .webp" in said(
        "heads", "strip", "a cat", "--heads", heads, "--out", tmp_path / "strip"
    )


def test_one_side_gives_the_other(tmp_path):
    """By the files of the model; without them, both must be given."""
    sizes = [
        [call_of(model, **given).get(side) for side in ("height", "width")]
        for model in ("sprites", "sprites-sd3", "sprites-flux", "sprites-pixart")
        for given in ({"height": 64}, {"width": 96}, {"height": 64, "width": 96})
    ]
    assert sizes == [[64, 128], [128, 96], [64, 96]] * 4
    assert "height" not in call_of("sprites")
    (tmp_path / "scheduler").mkdir()
    scheduler = tmp_path / "scheduler" / "scheduler_config.json"
    scheduler.write_text('{"num_train_timesteps": 20}')
    assert call_of(str(tmp_path), steps=20) == {"num_inference_steps": 20}
    with pytest.raises(SettingError, match=r"--steps 21: the schedule of .* has 20 steps"):
        call_of(str(tmp_path), steps=21)
    with pytest.raises(SettingError, match="--width is missing"):
        call_of(str(tmp_path), steps=2, height=64)


def test_options_that_the_pipeline_would_ignore(tmp_path):
    index = tmp_path / "model_index.json"
    index.write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(SettingError, match="true_cfg_scale is 1; use Python"):
        call_of(str(tmp_path), negative="red")
    index.write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert call_of(str(tmp_path), negative="red")["negative_prompt"] == "red"
    with pytest.raises(SettingError, match=r"guidance_scale is 0\.5; give --guidance above 1"):
        call_of(str(tmp_path), guidance=0.5, negative="red")
    index.write_text('{"_class_name": "Flux2KleinPipeline"}')
    with pytest.raises(SettingError, match="takes no negative_prompt"):
        call_of(str(tmp_path), negative="red")
