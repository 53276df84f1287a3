"""What the page asks for, makes and tells: without a browser."""

import re
import shlex
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from attncontrol import sprites
from attncontrol.app import shown, told
from attncontrol.app.asked import SOURCE, UNEDITED, Settings, edited, guided
from attncontrol.app.made import make, pipeline
from attncontrol.app.parsed import groups, parsed, words_of
from attncontrol.cli import app
from attncontrol.errors import AttnControlError
from attncontrol.export.names import plain

PROMPT, BLUE = "a red cat and a frog", "a blue cat and a frog"
TWO_STEPS = Settings(seeds="3", steps="2")
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio")


@pytest.fixture(scope="module")
def pipe():
    return pipeline("sprites", "cpu", "float32")


def made(pipe, asked):
    return make(pipe, asked, lambda *_: None, lambda: False)


def test_a_prompt_offers_its_subjects_and_then_its_other_words():
    found = parsed("a red cat, a cat and a blue frog, masterpiece")
    assert found.subjects == ("red+cat#1", "cat#2", "blue+frog")
    assert found.others == ("a", "and", "masterpiece")
    assert found.left_out == ("masterpiece (a tag)",)


def test_words_are_those_of_the_parse_unless_others_are_chosen():
    assert groups(PROMPT, ["red+cat", "frog"]) is None
    assert groups(PROMPT, ["frog"]) == [["frog"]]
    assert words_of(PROMPT, []) == ["red", "cat", "frog"]
    assert words_of(PROMPT, ["red+cat"]) == ["red", "cat"]


def test_a_guided_picture_stands_beside_a_plain_one_of_its_seed():
    asked = guided(Settings(seeds="0-1,7"), PROMPT, "syngen", ["red+cat"], "", "6%")
    before, steered = asked.arms["plain"], asked.arms["syngen"]
    assert [item.seed for item in before] == [item.seed for item in steered] == [0, 1, 7]
    assert (steered[0].words, steered[0].step_size) == ([["red", "cat"]], "6%")
    assert (before[0].method, before[0].words, asked.words) == ("plain", None, ("red", "cat"))


def test_an_edit_stands_beside_its_source_and_the_new_prompt(pipe):
    asked = edited(Settings(), pipe, PROMPT, "to", BLUE, method="auto")
    assert list(asked.arms) == [SOURCE, UNEDITED, "p2p@0.6+auto"]
    assert asked.last[0].source == asked.arms[SOURCE][0].prompt == PROMPT
    assert asked.arms[SOURCE][0].method == "auto"  # which steers both
    assert asked.note.startswith("recolour (red cat -> blue cat) by p2p@0.6+auto")
    removed = edited(Settings(), pipe, PROMPT, "remove", "", word="frog")
    assert removed.last[0].prompt == "a red cat"
    moved = edited(Settings(), pipe, PROMPT, "move", "", word="cat", right=0.3, down=0.0)
    assert list(moved.arms) == [SOURCE, "move"]


GUIDED = {
    "empty": ((Settings(), " ", "auto", [], "", ""), "the prompt is empty: write one"),
    "no word": (
        (Settings(), PROMPT, "auto", ["dog"], "", ""),
        "words: 'dog' is not in the prompt 'a red cat and a frog'; its words are: a, red, cat, "
        "and, frog",
    ),
    "no noun": ((Settings(), "hello", "auto", [], "", ""), "no noun was found in the prompt"),
    "no box": ((Settings(), PROMPT, "boxdiff", [], "", ""), "boxes: there is none; say where"),
    "two boxes": (
        (Settings(), PROMPT, "boxdiff", [], "cat=0,0,1,1\ncat=0,0,1,1", ""),
        "boxes: a word is there twice",
    ),
    "pixels": ((Settings(), PROMPT, "boxdiff", [], "cat=0,0,64,64", ""), "look like pixels"),
    "no step": ((Settings(), PROMPT, "auto", [], "", "big"), "step_size: 'big': write a number"),
    "seeds": ((Settings(seeds="a"), PROMPT, "auto", [], "", ""), "'a': write seeds as 0-3,8"),
    "many": ((Settings(seeds="0-99"), PROMPT, "auto", [], "", ""), "100 seeds: a page shows"),
    "steps": ((Settings(steps="x"), PROMPT, "auto", [], "", ""), "steps: 'x' is no number"),
    "none": ((Settings(steps="0"), PROMPT, "auto", [], "", ""), "steps: 0: it should be greater"),
    "inf": ((Settings(guidance="inf"), PROMPT, "auto", [], "", ""), "inf is no finite number"),
    "method": ((Settings(), PROMPT, "syngn", [], "", ""), "no such method; did you mean syngen?"),
}  # fmt: skip


def message(ask):
    with pytest.raises(AttnControlError) as error:
        ask()
    return re.sub(r"<[^>]*>", "", shown.wrong(error.value)).replace("&#x27;", "'")


@pytest.mark.parametrize("name", GUIDED)
def test_what_cannot_be_guided_is_told(name):
    given, expected = GUIDED[name]
    assert expected in message(lambda: guided(*given))


@pytest.mark.parametrize(
    ("kind", "to", "change", "expected"),
    [
        ("to", "", {"method": "p2p"}, "the second prompt is empty"),
        ("to", PROMPT, {"method": "auto"}, "there is nothing that auto could choose"),
        ("to", PROMPT, {"method": "p2p"}, "so p2p would change nothing"),
        ("to", BLUE, {"method": "p3p"}, "'p3p': no such method"),
        ("remove", "", {"word": "dog"}, "remove: 'dog' is not in the prompt"),
        ("remove", "", {"word": None}, "the word is empty"),
        ("move", "", {"word": "cat", "right": 0.0, "down": 0.0}, "nothing would move"),
        ("regions", "", {"regions": ""}, "regions: there is none"),
    ],
)
def test_what_cannot_be_edited_is_told(pipe, kind, to, change, expected):
    assert expected in message(lambda: edited(Settings(), pipe, PROMPT, kind, to, **change))


def asked_for(pipe, name):
    words = ["red+cat", "frog"]
    return {
        "loss": lambda: guided(TWO_STEPS, PROMPT, "syngen", words[:1], "", "6%"),
        "boxes": lambda: guided(TWO_STEPS, PROMPT, "placement", [], "cat=0,0.2,0.5,0.8", ""),
        "to": lambda: edited(TWO_STEPS, pipe, PROMPT, "to", BLUE, method="auto"),
        "move": lambda: edited(
            TWO_STEPS, pipe, PROMPT, "move", "", word="cat", right=0.3, down=0.0
        ),
        "regions": lambda: edited(
            Settings(seeds="3", steps="2", negative="a car"), pipe, PROMPT, "regions", "",
            regions="a red cat=0,0,0.5,1",
        ),
    }[name]()  # fmt: skip


@pytest.mark.parametrize("name", ["loss", "to", "move", "regions"])
def test_the_python_makes_the_same_picture(pipe, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = asked_for(pipe, name)
    exec(compile(told.python(asked), name, "exec"), {"__name__": "__main__"})
    with Image.open("3.png") as there:
        assert np.array_equal(there, made(pipe, asked)[3][-1].image)


@pytest.mark.parametrize("name", ["boxes", "to"])
def test_the_command_makes_the_same_picture(pipe, name, tmp_path):
    asked = asked_for(pipe, name)
    line = shlex.split(told.command(asked))
    done = CliRunner().invoke(app, [*line[1:], "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "out").glob(f"*.{plain(asked.last[0].method)}.3.png")
    with Image.open(file) as there:
        assert np.array_equal(there, made(pipe, asked)[3][-1].image)


def test_commands_say_what_was_set():
    settings = Settings("a/b", "cuda", "float16", "0-1, 3", "20", "4.5", "a car")
    asked = guided(settings, PROMPT, "syngen", ["red+cat", "frog", "and"], "", "6%")
    assert told.command(asked) == (
        "attncontrol generate 'a red cat and a frog' --method syngen --words red+cat,frog,and "
        "--step-size 6% --compare --seeds 0-1,3 --model a/b --steps 20 --guidance 4.5 "
        "--negative 'a car' --device cuda --dtype float16"
    )


def test_every_step_is_told_and_the_run_can_be_stopped(pipe):
    seen, asked = [], guided(TWO_STEPS, PROMPT, "syngen", [], "", "")
    before = pipe(PROMPT, generator=torch.Generator().manual_seed(3), num_inference_steps=2)
    assert make(pipe, asked, lambda *each: seen.append(each), lambda: False) is not None
    assert [share for share, _ in seen] == [0.25, 0.5, 0.75, 1.0]
    assert seen[-1][1] == "syngen, call 2 of 2, step 2"
    state = dict(vars(pipe.scheduler))
    stops = iter([False, False, False, True])
    assert make(pipe, asked, lambda *_: None, lambda: next(stops)) is None
    assert vars(pipe.scheduler).keys() == state.keys()
    after = pipe(PROMPT, generator=torch.Generator().manual_seed(3), num_inference_steps=2)
    assert np.array_equal(before.images[0], after.images[0])


def test_pictures_maps_and_losses_are_shown(pipe):
    asked = asked_for(pipe, "to")
    rows = made(pipe, asked)
    source, unedited, edit = rows[3]
    assert list(source.maps) == ["red", "cat", "frog"]
    assert list(unedited.maps) == ["blue", "cat", "frog"]
    assert list(edit.maps) == ["cat", "frog", "blue"]
    assert {one.shape for each in rows[3] for one in each.maps.values()} == {(16, 16)}
    html = shown.results(asked, rows)
    assert html.count("<img") == 3 + 9 + (edit.cells is not None)
    assert "blue cat" in html
    assert shown.losses(rows) == [{"step": 1, "loss": edit.losses[0], "seed": "seed 3"}]


def test_nothing_that_is_typed_becomes_html(pipe):
    word = "<img src=x onerror=alert(1)>"
    asked = guided(TWO_STEPS, f"a cat {word}", "placement", [], "cat=0,0,1,1", "")
    pages = [
        shown.results(asked, made(pipe, asked)), shown.parse(parsed(f"a cat {word}")),
        shown.note(word), shown.wrong(ValueError(word)),
    ]  # fmt: skip
    assert [page for page in pages if word in page] == []


@needs_gradio
def test_a_form_that_is_wrong_is_answered_with_its_message():
    import gradio as gr

    from attncontrol.app.runs import Runs

    request, runs = gr.Request(session_hash="a"), Runs("cpu", "float32")

    def progress(*_, **__): ...

    def send(words):
        return runs.run(
            lambda _: guided(TWO_STEPS, PROMPT, "auto", words, "", ""), "sprites", request, progress
        )

    message, *rest = send(["dog"])
    assert "&#x27;dog&#x27; is not in the prompt" in message
    assert rest == [gr.skip()] * 5
    assert "Nothing is being made" in runs.cancel(request)
    _, results, chart, command, python, ground = send([])
    assert results.count("<section") == 1
    assert (chart.visible, command[:20]) == (True, "attncontrol generate")
    compile(python, "python", "exec")
    assert ground.props["ground"].startswith("data:image/png")


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr("attncontrol.cli.browser.find_spec", lambda _: None)
    done = CliRunner().invoke(app, ["app"])
    assert done.exit_code == 2
    assert "pip install attncontrol[app]" in done.output


def test_the_models_are_those_of_the_package():
    assert Settings().model in sprites.MODELS
