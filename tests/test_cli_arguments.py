"""Mistakes on the command line: exit code 2 and one message that says what to write."""

import pytest
from typer.testing import CliRunner

from attncontrol.cli import app, checks

GENERATE, RECORD = ["generate", "a cat"], ["record", "a cat"]


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
        ([*GENERATE, "--guidance", "inf"], "inf is not a finite number"),
        ([*GENERATE, "--steps", "1001"], "Invalid value for '--steps'"),
        ([*GENERATE, "--seeds", str(2**64)], "the largest seed is 18446744073709551615"),
        ([*RECORD, "--seed", str(2**64)], "Invalid value for '--seed'"),
        ([*GENERATE, "--height", "64"], "give --height and --width together"),
        ([*RECORD, "--height", "65", "--width", "64"], "65 is no multiple of 8"),
        ([*GENERATE, "--words", "cat,"], "write words separated by commas"),
        ([*RECORD, "--keep", "x"], "x: choose from step, head"),
        ([*RECORD, "--encoding", "int8"], "choose from float32, float16, bfloat16, sqrt8"),
        (["bench", "--suite", "x"], "choose from pairs, triples, colors, layout"),
        (["bench", "--methods", "boxdiff"], "for the suite pairs choose from auto"),
        (
            ["bench", "--model", "x"],
            "pictures can be scored for sprites, sprites-sd3, sprites-flux",
        ),
        (["bench", "--step-size", "ebama"], "a step size is written method=number"),
        (["bench", "--step-size", "ebama=nan"], "a step size is a finite number"),
        (["bench", "--step-size", "ebma=1"], "'ebma' is none of the methods"),
        (["heads", "search", "a cat", "--kind", "x"], "choose from self, joint, cross"),
        (["edit", "a cat", "--to", "a dog", "--method", "x"], "choose from replace, mutual"),
        (["edit", "a cat", "--to", ""], "the prompt is empty"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[:30],
)
def test_messages(arguments, message):
    assert message in said(*arguments)


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
    for content, message in (
        ("a cat".encode("utf-16"), "cannot be read as UTF-8 text"),
        (b"\n# only this\n", "holds no prompt"),
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
    assert "is a folder; give a file" in said(
        "maps", __file__, "--prompt", "a cat", "--out", tmp_path
    )
    heads = tmp_path / "heads.json"
    for content in ('{"heads": []}', '{"heads": [1]}', "{", "[]"):
        heads.write_text(content)
        assert "ResultsError" in said(*GENERATE, "--heads", heads, "--out", tmp_path / "out")
    assert "a picture ends in .png, .jpg or .webp" in said(
        "heads", "strip", "a cat", "--heads", heads, "--out", tmp_path / "strip"
    )
