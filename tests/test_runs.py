"""Folders of runs: what is there is kept, what differs is refused, run.json repeats the run."""

import json
import os
import shutil
import signal

import pytest
from PIL import Image
from typer.testing import CliRunner

from attncontrol.batch import resume
from attncontrol.batch.runs import EditingRun, GenerationRun, load_run
from attncontrol.cli import app
from attncontrol.cli import edit_run as edit_command
from attncontrol.cli import generate as command
from attncontrol.errors import NonFiniteError, ResultsError
from attncontrol.export.folder import is_picture, save
from attncontrol.export.names import name_of, stem_of
from attncontrol.writing import locked


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


def contents(folder):
    """Pictures by name, and run.json without times."""
    run = json.loads((folder / "run.json").read_text())
    for row in run["pictures"]:
        row.pop("seconds"), row.pop("memory", None)
    run.pop("command")
    return {path.name: path.read_bytes() for path in folder.glob("*.png")} | {"run": run}


@pytest.fixture(scope="module")
def arguments(model):
    """Two prompts, two batches, two arms."""
    file = f"{model}.txt"
    with open(file, "w") as lines:
        lines.write("a red cat\na red frog\na red cat\n")
    return ["--prompts", file, "--model", model, "--seeds", "0-2", "--batch", 2, "--steps", 1,
            "--compare", "--method", "syngen", "--negative", "fog", "--step-size", 3]  # fmt: skip


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    code, _, said = invoke("generate", *arguments, "--out", out)
    assert code == 0, said
    assert "'a red cat' is given 2 times; it is made once" in said
    return out


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a red cat", "A cat!"), ("a" * 60 + " cat", "a" * 60 + " dog"), ("猫", "犬"), ("🐸", ""),
        ("Straße", "STRASSE"), ("caf\u00e9", "cafe\u0301"), ("../../etc/passwd", ".etc.passwd"),
    ],
)  # fmt: skip
def test_stems_are_readable_names_that_no_two_prompts_share(one, other):
    stems = [stem_of(text).casefold() for text in (one, other)]
    assert stems[0] != stems[1]
    for stem in stems:
        assert len(stem.encode()) < 200
        assert stem[0].isalnum()
        assert not set(stem) & set('/\\:*?"<>|. ')
    assert stem_of("a red Cat").startswith("a-red-cat-")
    assert "/" not in name_of(one, "../my:Loss", 3)


def test_a_run_that_is_whole_is_kept(finished, arguments):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*.png")}
    code, _, said = invoke("generate", *arguments, "--out", finished)
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*.png")} == before
    run = load_run(finished / "run.json", GenerationRun)
    assert run.complete
    assert len(before) == 2 * (2 * 3 + 3 * 2)
    assert set(run.settings.order) == {picture.file for picture in run.pictures}


@pytest.mark.parametrize("half", ["no report", "missing", "cut", "empty", "unrecorded"])
def test_what_is_missing_is_made_to_the_same_end(finished, arguments, tmp_path, half):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    run = load_run(out / "run.json", GenerationRun)
    picture = out / run.pictures[4].file
    if half == "no report":
        (out / "run.json").unlink()
        code, _, said = invoke("generate", *arguments, "--out", out)
        assert code != 0
        assert "and no run; give an empty or a new folder with --out" in said
        return
    if half == "unrecorded":
        run.model_copy(update={"pictures": run.pictures[:3], "complete": False}).write(out)
    elif half == "missing":
        picture.unlink()
    else:
        picture.write_bytes(picture.read_bytes()[:300] if half == "cut" else b"")
    code, _, said = invoke("generate", *arguments, "--out", out)
    assert code == 0, said
    assert contents(out) == contents(finished)


def test_every_run_has_a_folder_of_its_own_by_default(finished):
    run = load_run(finished / "run.json", GenerationRun)
    asked = run.settings.model_copy(update={"scheduler": None, "parameters": None})
    assert run.model_copy(update={"settings": asked, "pictures": []}).folder == run.folder
    others = [{"seeds": [3]}, {"method": "ebama"}, {"prompts": ["a red cat", "a dog"]}]
    folders = [
        run.model_copy(update={"settings": run.settings.model_copy(update=other)}).folder
        for other in others
    ]
    assert len({run.folder, *folders}) == 4
    assert run.folder.parent.name == "attncontrol-out"
    assert run.folder.name.startswith("a-red-cat-")


def test_run_json_repeats_the_run(finished, tmp_path):
    out = tmp_path / "again"
    code, _, said = invoke("generate", "--from", finished / "run.json", "--out", out)
    assert code == 0, said
    assert contents(out) == contents(finished)
    code, _, said = invoke("generate", "--from", finished / "run.json", "--seeds", 3)
    assert code == 2
    assert "--seeds cannot be changed beside it" in said


def test_the_scheduler_of_the_run_is_that_of_its_repetition(finished, tmp_path):
    data = json.loads((finished / "run.json").read_text())
    data["settings"]["scheduler"] |= {"beta_end": 0.02}
    data["settings"] |= {"prompts": ["a red cat"], "seeds": [0], "compare": False}
    (tmp_path / "run.json").write_text(json.dumps(data))
    out = tmp_path / "out"
    code, _, said = invoke("generate", "--from", tmp_path / "run.json", "--out", out)
    assert code == 0, said
    made = load_run(out / "run.json", GenerationRun).settings
    assert made.scheduler == data["settings"]["scheduler"]
    name = name_of("a red cat", "syngen", 0)
    assert (out / name).read_bytes() != (finished / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [-1]}, "settings.seeds.0: Input should be greater than or equal to 0"),
        ({"call": {"cross_attention_kwargs": {}}}, "settings.call.cross_attention_kwargs"),
        ({"boxes": {"cat": [0, 0, 2, 1]}}, "less than or equal to 1"),
        ({"method": "os:system"}, "runs your own code, os:system; to say that this is meant"),
        ({"scheduler": {"_class_name": "Path"}}, "diffusers has no scheduler 'Path'"),
        ({"parameters": {}}, "the run cannot be repeated exactly: parameters: {} there"),
        ({"prompts": ["a red dog"]}, "run.json: words has none for the prompt 'a red dog'"),
        ({"prompts": ["a \x1b[31m cat"]}, "hold no control characters"),
        ({"prompts": [" "]}, "settings.prompts.0"),
        ({"prompts": ["a red cat", "a red cat"]}, "'a red cat' is there twice"),
        ({"seeds": [1, 1]}, "settings.seeds: Value error, 1 is there twice"),
        ({"boxes": {"cat": [0.5, 0, 0.1, 1]}}, "is no box: left < right and top < bottom"),
        ({"boxes": {"cat": [0, 0, 1, 1]}}, "run.json: syngen takes no boxes"),
        ({"heads": []}, "settings.heads"),
        ({"heads_scale": -5.0}, "settings.heads_scale"),
        ({"model": "no/such/folder"}, "run.json: 'no/such/folder': there is no folder of that"),
        ({"u": 0.5}, "run.json: it has no effect with no --heads"),
        ({"words": [["dog"]]}, "run.json: 'dog' is not in the prompt"),
        ({"call": {"height": 100000}}, "less than or equal to 8192"),
        ({"call": {"negative_prompt": "fog", "guidance_scale": 1.0}}, "--negative has no effect"),
        ({"call": {"true_cfg_scale": 3.0}}, "StableDiffusionPipeline takes no true_cfg_scale"),
    ],
)
def test_a_report_from_elsewhere_is_checked(finished, tmp_path, monkeypatch, change, message):
    if not {"scheduler", "parameters"} & change.keys():
        monkeypatch.setattr(command.pipelines, "opened", lambda *_: pytest.fail("it was loaded"))
    data = json.loads((finished / "run.json").read_text())
    data["settings"] |= change
    (tmp_path / "run.json").write_text(json.dumps(data))
    out = tmp_path / "out"
    code, _, said = invoke("generate", "--from", tmp_path / "run.json", "--out", out)
    assert code == 2
    assert message in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to": "a \x9b dog"}, "run.json: 'a \\x9b dog': prompts, names and paths hold no control"),
        ({"method": "magic"}, "run.json: 'magic': choose from p2p, replace"),
        ({"to": "a red cat"}, "run.json: it says what PROMPT says, 'a red cat', so masactrl@0"),
        ({"method": "remove", "remove": "dog"}, "run.json: 'dog' is not in the prompt 'a red cat'"),
        ({"method": "move", "move": ["dog", 0.3, 0]}, "run.json: 'dog' is not in the prompt"),
        ({"call": {"num_inference_steps": 1000, "width": 12}}, "settings.call.width"),
    ],
)
def test_a_report_of_an_edit_is_checked(edited, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(command.pipelines, "opened", lambda *_: pytest.fail("it was loaded"))
    data = json.loads((edited[1] / "run.json").read_text())
    data["settings"] |= change
    (tmp_path / "run.json").write_text(json.dumps(data))
    code, _, said = invoke("edit", "--from", tmp_path / "run.json", "--out", tmp_path / "out")
    assert code == 2
    assert message in said


@pytest.mark.parametrize("change", [{"seed": 5}, {"found": ["dog"]}, {"refinements": [7]}])
def test_pictures_of_a_report_are_not_changed_by_hand(finished, tmp_path, change):
    data = json.loads((finished / "run.json").read_text())
    (tmp_path / "run.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(data).encode())
    assert load_run(tmp_path / "run.json", GenerationRun).complete  # an editor has added a BOM
    data["pictures"][-1] |= change
    (tmp_path / "run.json").write_text(json.dumps(data))
    with pytest.raises(ResultsError, match=r"run\.json: its pictures were changed by hand"):
        load_run(tmp_path / "run.json", GenerationRun)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00\xff", '{"pictures": 3}', "[" * 9999])
def test_what_is_no_report_is_one_error(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ResultsError, match=r"run\.json is no run\.json of attncontrol generate: "):
        load_run(tmp_path / "run.json", GenerationRun)


def test_other_runs_and_files_of_others_are_refused(finished, arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(command.pipelines, "opened", lambda *_: pytest.fail("it was loaded"))
    code, _, said = invoke("generate", *arguments, "--seeds", "0-3", "--out", finished)
    assert code == 2
    assert "(seeds: [0, 1, 2] there, [0, 1, 2, 3] here); give another folder with --out" in said
    (tmp_path / "notes.txt").write_text("mine")
    code, _, said = invoke("generate", *arguments, "--out", tmp_path)
    assert code != 0
    assert "holds notes.txt and no run" in said
    assert os.listdir(tmp_path) == ["notes.txt"]
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    run = load_run(out / "run.json", GenerationRun)
    run.model_copy(update={"pictures": run.pictures[:3]}).write(out)
    theirs = out / run.pictures[-1].file
    Image.new("RGB", (8, 8)).save(theirs)
    code, _, said = invoke("generate", *arguments, "--out", out)
    assert code != 0
    assert f"{theirs.name} was not made by this command" in said.replace("- ", "-")


def test_one_process_at_a_time_writes_into_a_folder(edited, tmp_path):
    line, _ = edited
    with locked(tmp_path):
        code, _, said = invoke(*line, "--out", tmp_path)
    assert code == 1
    assert "another run writes into" in said
    assert not list(tmp_path.iterdir())


HEADS = ["heads", "search", "a cat", "--seeds", "0"]
TOLD = {"model": "sprites", "device": "cpu", "dtype": "float32", "u": 1, "objective": "quality",
        "scale": 2.0, "num_inference_steps": 20, "guidance_scale": 1.0}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "there", "message"),
    [
        (["bench"], {"notes.txt": "mine"}, "holds notes.txt and no results of this command, which"),
        (["bench"], {"pictures.csv": "a,b"}, "holds pictures.csv and no results of this command"),
        (["bench"], {"settings": "", "pairs.md": "# Pairs"}, "pairs.md exists and was not made by"),
        (
            ["bench"],
            {"settings": "", "pairs.png": "a"},
            "pairs.png exists and was not made by",
        ),
        (
            HEADS,
            {"notes.txt": "mine"},
            "holds notes.txt and no results of this command",
        ),
        (HEADS, {"settings.json": "{}", "heads.json": "[]"}, "heads.json exists and was not made"),
        (HEADS, {"settings.json": "["}, "settings.json holds no settings; remove it"),
        (HEADS, {"settings.json": json.dumps(TOLD)}, "scale: 2.0 there, 3.0 here"),
    ],
)
def test_folders_of_others_are_refused_before_a_model_is_loaded(
    tmp_path, monkeypatch, line, there, message
):
    monkeypatch.setattr(command.pipelines, "opened", lambda *_: pytest.fail("it was loaded"))
    for name, text in there.items():
        (tmp_path / name).write_text(text)
    code, _, said = invoke(*line, "--out", tmp_path)
    assert code != 0
    assert message in said.replace("- ", "-")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == there


def test_a_prompt_that_fails_is_recorded_and_the_others_are_made(
    finished, arguments, tmp_path, monkeypatch
):
    made = command._made

    def failing(pipe, run, guidance, out, unit):
        if unit.prompt == "a red cat":
            raise NonFiniteError("the loss is NaN")
        return made(pipe, run, guidance, out, unit)

    monkeypatch.setattr(command, "_made", failing)
    code, _, said = invoke("generate", *arguments, "--out", tmp_path)
    assert code == 1
    assert (
        "1 of 2 prompts failed, run.json names them; 'a red cat': NonFiniteError: the loss" in said
    )
    run = load_run(tmp_path / "run.json", GenerationRun)
    assert [failure.prompt for failure in run.failed] == ["a red cat"]
    assert {picture.prompt for picture in run.pictures} == {"a red frog"}
    assert not run.complete
    monkeypatch.undo()
    assert invoke("generate", *arguments, "--out", tmp_path)[0] == 0
    assert contents(tmp_path) == contents(finished)


def test_what_fails_while_it_is_made_ends_with_1(arguments, edited, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise NonFiniteError("NaN at step 0")

    monkeypatch.setattr(command, "_made", fails)
    monkeypatch.setattr(edit_command, "_made", fails)
    for line, prompts in ((["generate", *arguments], 2), (edited[0], 1)):
        code, _, said = invoke(*line, "--out", tmp_path / line[0])
        assert code == 1
        assert f"{prompts} of {prompts} prompts failed, run.json names them; 'a red " in said
        assert said.count("NonFiniteError: NaN at step 0") == 1


@pytest.fixture(scope="module")
def edited(model, tmp_path_factory):
    """Two units of two or four seeds, by its line and its folder."""
    out = tmp_path_factory.mktemp("edited") / "run"
    line = ["edit", "a red cat", "--to", "a red dog", "--method", "masactrl@0", "--seeds", "0-4",
            "--compare", "--model", model, "--height", 64, "--width", 64, "--steps", 1]  # fmt: skip
    code, _, said = invoke(*line, "--out", out)
    assert code == 0, said
    return line, out


@pytest.mark.parametrize("late", [False, True], ids=["before it writes", "before it reports"])
def test_an_edit_goes_on_after_a_kill(edited, tmp_path, monkeypatch, late):
    """In its second unit."""
    line, finished = edited
    written = edit_command._written

    def killed(made, cells, run, out, seeds, *shown):
        again = late or seeds != (4,)
        records = written(made, cells, run, out, seeds, *shown) if again else []
        if seeds == (4,):
            os.kill(os.getpid(), signal.SIGKILL)
        return records

    monkeypatch.setattr(edit_command, "_written", killed)
    if (child := os.fork()) == 0:
        try:
            invoke(*line, "--out", tmp_path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    monkeypatch.undo()
    run = load_run(tmp_path / "run.json", EditingRun)
    assert (run.complete, len(run.pictures)) == (False, 12)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.png")}
    assert len(before) == (17 if late else 13)
    code, _, said = invoke(*line, "--out", tmp_path)
    assert code == 0, said
    assert contents(tmp_path) == contents(finished)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_run_json_repeats_an_edit(edited, finished, tmp_path):
    out = tmp_path / "again"
    code, _, said = invoke("edit", "--from", edited[1] / "run.json", "--out", out)
    assert code == 0, said
    assert contents(out) == contents(edited[1])
    assert "no method changes anything" not in said
    code, _, said = invoke("edit", "--from", out / "run.json", "--to", "a frog")
    assert code == 2
    assert "--to cannot be changed beside it" in said
    code, _, said = invoke("edit", "--from", finished / "run.json", "--out", tmp_path / "other")
    assert code == 2
    assert "is no run.json of attncontrol edit: " in said
    assert not (tmp_path / "other").exists()


def test_long_runs_write_their_report_seldom(finished, monkeypatch, tmp_path):
    run = load_run(finished / "run.json", GenerationRun)
    saved, clock = [], iter(range(0, 1000, 10))
    monkeypatch.setattr(resume.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(GenerationRun, "write", lambda self, _: saved.append(len(self.pictures)))
    records = {picture.file: picture for picture in run.pictures}
    empty = run.model_copy(update={"pictures": []})
    resume.carry_out(empty, tmp_path, lambda unit: [
        records[name] for name in run.settings.pictures(unit)
    ])  # fmt: skip
    assert saved == [0, 4, 12]  # writing took 10 s: none in the next 200


def test_pictures_tell_how_they_were_made(finished):
    run = load_run(finished / "run.json", GenerationRun)
    with Image.open(finished / run.pictures[-1].file) as picture:
        told = json.loads(picture.text["attncontrol"])
    assert (told["prompt"], told["method"], told["seed"]) == ("a red frog", "syngen", 2)
    assert told["settings"]["call"] == {"num_inference_steps": 1, "negative_prompt": "fog"}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_pictures_of_ours_are_known(tmp_path, suffix):
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / f"theirs{suffix}"
    save(Image.new("RGB", (8, 8)), ours, {"prompt": "a red cat \u732b"})
    Image.new("RGB", (8, 8)).save(theirs)
    assert is_picture(ours)
    assert not is_picture(theirs)
    theirs.write_text("a letter")
    assert not is_picture(theirs)
