"""Edits of which nothing comes say why, and those that are meant to do nothing do not."""

import pytest
import torch

from attncontrol.attention.sites import Where
from attncontrol.edits import LocalBlend, Replace, Share, SoftUniform, StyleAligned
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from tests.kit.runs import run
from tests.kit.zoo import sd

MID = Where(layers=("mid_block",))
BETWEEN = {"steps": (0.9, 0.95), "where": MID}
NO_STEP, NO_OTHER = "no step of the run lies", "its source is the only image"
IDLE = {
    "window": (lambda p: edit(p, SoftUniform(), **BETWEEN), rf"steps=\(0.9, 0.95\): {NO_STEP}"),
    "own window": (lambda p: edit(p, Share(start=0.3, stop=0.6)), NO_STEP),
    "weakened": (lambda p: perturb(p, SoftUniform(), scale=1.0, **BETWEEN), NO_STEP),
    "replace": (lambda p: edit(p, Replace()), NO_OTHER),
    "numbers": (lambda p: edit(p, Replace(source=(0, 0))), NO_OTHER),
    "style": (lambda p: edit(p, StyleAligned()), NO_OTHER),
    "latents": (lambda p: edit(p, LocalBlend()), NO_OTHER),
}
MEANT = {
    "strength": lambda p: edit(p, SoftUniform(0.0), where=MID),
    "scale": lambda p: perturb(p, SoftUniform(), scale=0.0, where=MID),
    "looking": lambda p: edit(p, lambda call, _: call, where=MID),
}


@pytest.fixture(scope="module")
def pipe():
    return sd()


@pytest.fixture(scope="module")
def plain(pipe):
    return run("sd", pipe)


@pytest.mark.parametrize("name", IDLE)
def test_an_edit_that_changes_nothing_says_why(pipe, plain, name):
    make, why = IDLE[name]
    with pytest.warns(UserWarning, match=f"changed nothing.*{why}") as said, make(pipe):
        pictures = run("sd", pipe)
    (warning,) = said
    assert warning.filename == __file__
    assert torch.allclose(pictures, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MEANT)
@pytest.mark.filterwarnings("error")
def test_what_is_meant_to_change_nothing_says_nothing(pipe, plain, name):
    with MEANT[name](pipe):
        assert torch.equal(run("sd", pipe), plain)


@pytest.mark.filterwarnings("error")
def test_an_edit_with_an_image_to_change_says_nothing(pipe, plain):
    with edit(pipe, Replace()):
        source, other = run("sd", pipe, ["a red cat and a turtle", "a red dog and a turtle"])
    assert torch.allclose(source, plain[0], rtol=0, atol=1e-9)
    assert (source - other).abs().max() > 1e-3
