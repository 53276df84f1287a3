"""What is no edit, and edits that a model cannot have, by their messages."""

from dataclasses import replace

import pytest
import torch

from attncontrol import edit, keep, perturb
from attncontrol.attention.regions import Region
from attncontrol.checks.arguments import check
from attncontrol.edits import DenseDiffusion, Remove, Replace, Share
from attncontrol.errors import EditError, SettingError, SiteError
from attncontrol.verbs.places import listed, require_edits
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
