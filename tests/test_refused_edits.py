"""What is no edit, and edits that a model cannot have, by their messages."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from attncontrol import edit, invert, keep, perturb, retrace
from attncontrol.attention.edit import Edit
from attncontrol.attention.regions import Region
from attncontrol.checks.arguments import check
from attncontrol.edits import DenseDiffusion, Remove, Replace, Share, Within
from attncontrol.errors import EditError, SettingError, SiteError
from attncontrol.verbs.places import listed, require_edits
from tests.kit.known import ALL
from tests.kit.photos import photos
from tests.kit.runs import run
from tests.kit.state import left_behind
from tests.kit.zoo import sd, sd3

NAME = r"'p2p' is a string, no edit: write an object of attncontrol\.edits, such as Replace\(\)"
EMPTY = r"\[\] holds no edit: write an object of attncontrol\.edits, such as Replace\(\), or a list"


@pytest.mark.parametrize(("given", "message"), [("p2p", NAME), ([], EMPTY)])
def test_names_and_empty_lists_are_no_edits(given, message):
    with pytest.raises(EditError, match=message):
        listed(given, None, None)  # as edit and perturb do
    with pytest.raises(EditError, match=message):
        require_edits(given)


@pytest.mark.parametrize("verb", [edit, keep, lambda pipe, edits: perturb(pipe, edits, scale=1.0)])
def test_verbs_refuse_them_before_a_run(verb):
    with pytest.raises(EditError, match=EMPTY), verb(sd(), []):
        pytest.fail("it ran")


def test_regions_say_what_a_box_is():
    for wrong in (None, 7, "box", (0.1, 0.2)):
        with pytest.raises(SettingError) as error:
            check("Remove.region", wrong, Region)
        assert str(error.value) == (
            "Remove.region must be a box (left, top, right, bottom) in fractions of the picture or "
            f"a mask [height width], not {wrong!r}"
        )


LEFT, TOP = "left (0.9) must be less than right (0.1)", "top (0.9) must be less than bottom (0.9)"


@pytest.mark.parametrize(
    ("box", "wrong"),
    [
        ((0.9, 0.2, 0.1, 0.9), f": {LEFT}"),
        ((0.1, 0.9, 0.9, 0.9), f": {TOP}"),
        ((0.9, 0.9, 0.1, 0.9), f": {LEFT} and {TOP}"),
        ((0.0, 0.0, 64.0, 64.0), ""),
    ],
)
def test_boxes_say_which_sides_are_wrong(box, wrong):
    for make in (lambda: Remove(box), lambda: DenseDiffusion({"cat": box})):
        with pytest.raises(SettingError) as error:
            make()
        assert str(error.value).endswith(f"in fractions of the picture, not {box}{wrong}")


def test_masks_are_regions_too():
    assert Remove(torch.ones(2, 3)).region.shape == (2, 3)


@pytest.mark.parametrize(
    "share", [Share.preset("rf-edit"), replace(Share.preset("rf-edit"), stop=0.1)]
)
@pytest.mark.parametrize("make", [sd, sd3])
def test_presets_say_for_which_models_they_are(share, make):
    told = (
        r"^layers of the preset rf-edit, which is for FLUX.1, with 19 double and 38 single blocks"
    )
    with pytest.raises(SiteError, match=told), edit(make(), share):
        pytest.fail("it ran")


def test_layers_of_the_user_are_of_no_preset():
    share = Share(layers=("nowhere",))
    with pytest.raises(SiteError, match=r"^no attention site matches"), edit(sd(), share):
        pytest.fail("it ran")
    assert Replace().made_for == Share().made_for == Share.preset("consistedit").made_for == ""


@dataclass(frozen=True)
class Giving(Edit):
    """``change`` makes what ``at`` returns."""

    at: str
    change: Any
    where = "localising"

    def __call__(self, call, now):  # noqa: ARG002
        return call

    def begun(self, latents, drawn, now):  # noqa: ARG002
        return self.change(latents) if self.at == "begun" else latents

    def stepped(self, latents, now):  # noqa: ARG002
        return self.change(latents) if self.at == "stepped" else latents

    def decoded(self, pictures, now):  # noqa: ARG002
        return self.change(pictures) if self.at == "decoded" else pictures


@pytest.fixture(scope="module")
def inverted():
    pipe = sd()
    return pipe, invert(pipe, photos(1), "a red cat", num_inference_steps=2)


@pytest.mark.parametrize("at", ["begun", "stepped", "decoded"])
def test_latents_and_pictures_have_the_shape_that_was_given(inverted, at):
    """And their type; those of another are as if they had been made in it."""
    pipe, trajectory = inverted

    def made(change):
        with retrace(pipe, trajectory), edit(pipe, Giving(at, change)):
            return run("sd", pipe, ["a red cat", "a dog"], output_type="pt")

    for wrong, shown in ((lambda _: None, "None"), (lambda of: of[:1], r"\[1, \d, \d+, \d+\]")):
        with pytest.raises(EditError, match=f"Giving returned {shown} for latents or pict"):
            made(wrong)
        assert not left_behind(pipe)
    plain, halved = made(lambda of: of), made(lambda of: of / 2)
    assert (halved - plain).abs().max() > 1e-4
    assert torch.equal(made(lambda of: of.div_(2)), halved)  # in place
    assert torch.equal(
        made(lambda of: (of / 2).float().double()), made(lambda of: (of / 2).float())
    )


def test_latents_that_are_patches_of_several_pictures_are_not_edited():
    pipe = ALL["joyimage-plus"].make()
    refused = pytest.raises(EditError, match="JoyImageEditPlusPipeline, whose latents are no grid")
    with refused, edit(pipe, Within((0.0, 0.0, 0.5, 0.5))):
        pytest.fail("it ran")
