"""What ``attncontrol edit`` makes of its settings."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from attncontrol.attention.call import Layout
from attncontrol.batch.edit_changes import edits_for, objective_for, place_of
from attncontrol.batch.edit_choice import CHOICES, STEERS, chosen
from attncontrol.batch.edit_methods import METHODS, edits_of
from attncontrol.batch.edit_names import editing
from attncontrol.batch.edit_pictures import compared
from attncontrol.batch.generate import Picture
from attncontrol.batch.settings import Editing, asked
from attncontrol.cli import changes
from attncontrol.edits import LocalBlend, Move, PlugAndPlay, Regions, Remove, Replace
from attncontrol.errors import SettingError
from attncontrol.families.known import family_of
from attncontrol.losses import Auto
from attncontrol.maps.draw import faded
from attncontrol.verbs.taking import Taking
from tests.kit.moments import moment
from tests.kit.zoo import flux, pixart, sd

RUN = {
    "prompt": "a cat", "to": "a dog", "seeds": [0], "compare": False, "model": "sprites",
    "device": "cpu", "dtype": "float32", "call": {},
}  # fmt: skip
BOX = (0.0, 0.0, 0.5, 1.0)


def made(place=None, **change):
    return edits_for(asked(Editing, **RUN, **change), place)


def test_the_names_on_the_command_line_are_those_of_the_methods():
    assert tuple(METHODS) == changes.METHODS


def test_every_change_has_its_edit():
    blend, replace = (on.edit for on in made(method="p2p@0.4"))
    assert blend == LocalBlend()
    assert replace == Replace(cross=0.4, among=0.2, joint=0.1)
    regions = made(method="regions", regions={"a cat": BOX})
    assert regions == Regions({"a cat": BOX}, images=(1,))
    assert made(BOX, method="remove", remove="cat") == Remove(BOX)
    assert made(BOX, method="move", move=("cat", 0.3, 0.0)) == Move(BOX, by=(0.3, 0.0))


def test_a_shift_out_of_the_picture_is_told_as_a_shift():
    with pytest.raises(SettingError, match=r"^the shift by=\(0\.9, 0\.0\) leaves nothing of it in"):
        made((0.5, 0.0, 1.0, 1.0), method="move", move=("cat", 0.9, 0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "p2p", "remove": "cat"},
        {"method": "move"},
        {"method": "move", "move": ("cat", 0.0, 0.0)},
        {"method": "regions", "regions": {"a cat": (0.5, 0.0, 0.2, 1.0)}},
    ],
)
def test_settings_that_contradict_each_other_are_refused(change):
    with pytest.raises(SettingError):
        asked(Editing, **RUN, **change)


def test_unknown_methods_and_strengths_are_refused():
    for name, message in (
        ("p3p", "'p3p': choose from p2p, replace"),
        ("p2p+blend@", r"'blend@' in 'p2p\+blend@': write its strength as blend@0\.4"),
        ("p2p@much", r"write its strength as p2p@0\.4"),
        ("p2p@nan", r"a strength is a share between 0 and 1, such as p2p@0\.5"),
        ("auto", "'auto': auto stands once beside a method"),
        ("p2p+auto@1", "auto has no strength"),
    ):
        with pytest.raises(SettingError, match=message):
            edits_of(name, 0)


def test_auto_beside_a_method_steers():
    steered = asked(Editing, **RUN, method="p2p+auto")
    assert objective_for(steered) == Auto()
    assert edits_for(steered, None) == edits_of("p2p", 0)
    assert objective_for(asked(Editing, **RUN, method="p2p")) is None
    assert objective_for(asked(Editing, **RUN, method="remove", remove="cat")) is None


def test_plug_and_play_has_the_layers_of_its_unet():
    (of_sd,), (of_sdxl,) = (edits_of("pnp@0.4", 0, pipe) for pipe in map(of_levels, (4, 3)))
    assert of_sd.edit == PlugAndPlay(attention=0.25, residual=0.4)
    assert of_sdxl.edit.block == PlugAndPlay.preset("sdxl").block == "up_blocks.0.resnets.1"
    with pytest.raises(SettingError, match="UNets alone have: FluxPipeline has none; layout takes"):
        edits_of("pnp", 0, flux())


def of_levels(count):
    unet = SimpleNamespace(config=SimpleNamespace(block_out_channels=(8,) * count))
    return SimpleNamespace(unet=unet)


@pytest.mark.parametrize(
    ("make", "after", "method", "said"),
    [
        (
            sd, "a blue cat and a frog", "p2p@0.6+auto",
            "recolour (red cat -> blue cat) by p2p@0.6+auto: right in 85 % ",
        ),
        (
            sd, "a red dog and a frog", "p2p+auto",
            "swap (red cat -> red dog) by p2p+auto: right in 87 % ",
        ),
        (sd, "a red cat, a car and a frog", "blend@0.3+auto", "add (nothing -> car) by blend@0.3"),
        (pixart, "a frog", "p2p", "remove (red cat -> nothing) by p2p: right in 91 % "),
        (
            flux, "a blue cat and a frog", "p2p@0.6+auto",
            "recolour (red cat -> blue cat) by p2p@0.6+auto: right in 48 % on SD3, 62 on FLUX",
        ),
        (flux, "a sketch of a red cat and a frog", "replace", "restyle (nothing -> a sketch of) "),
        (flux, "a red cat beside a frog", "p2p", "other (and -> beside) by p2p: "),
    ],
)  # fmt: skip
def test_auto_chooses_by_what_changes_and_by_the_model(make, after, method, said):
    pipe = make()
    found, why = chosen("a red cat and a frog", after, pipe, family_of(pipe))
    assert found == method
    assert why.startswith(said)
    assert why.endswith(STEERS) == ("auto" in method)


def test_every_choice_is_a_method():
    for choice in CHOICES:
        assert editing(choice.method)[0]
    for form in ("joint", "cross"):
        there = {choice.kind for choice in CHOICES if choice.on in (form, "any")}
        assert there == {"add", "swap", "remove", "recolour", "restyle", "other"}


@pytest.mark.parametrize("packed", [False, True])
def test_cells_that_are_taken_over(packed):
    latents = torch.rand(2, 3, 2, 4)
    latents[1, :, 0, 1:3] = latents[0, :, 0, 1:3]
    latents[1, 0, 1, 3] = latents[0, 0, 1, 3]  # one channel alone
    now, seen = moment(Layout((2, 4)), images=2), Taking(lambda _: 0)
    given = latents.flatten(2).mT if packed else latents
    assert seen.last is None
    seen.ended(given, now)
    later = replace(now, step=replace(now.step, index=now.step.index + 1))
    seen.ended(torch.rand(2, *given.shape[1:]), later)
    assert seen.last.tolist() == [[[0] * 4] * 2, [[0, 1, 1, 0], [0] * 4]]


def test_rows_that_are_compared():
    picture = Picture("a cat", 0, "plain", Image.new("RGB", (8, 8)), {}, (), (), 0.0, 0.0)
    settings = asked(Editing, **RUN | {"compare": True}, method="p2p")
    made = {role: [picture] for role in settings.roles}
    rows = ["source", "same seed, new prompt", "p2p"]
    assert list(compared(made, [None], settings)) == rows
    cells = torch.tensor([[True, False]])
    assert list(compared(made, [cells], settings)) == [*rows, "pale: cells of the source"]
    same = {"compare": True, "to": RUN["prompt"], "regions": {"a cat": BOX}}
    settings = asked(Editing, **RUN | same, method="regions")
    made = {role: [picture] for role in settings.roles}
    assert list(compared(made, [None], settings)) == ["source", "regions", "its regions"]


def test_what_is_taken_over_is_pale():
    picture = Image.new("RGB", (8, 4), (200, 0, 0))
    shown = np.asarray(faded(picture, [[False, True], [False, True]]))
    assert (shown[:, :4] == (200, 0, 0)).all()
    gray = picture.convert("L").getpixel((0, 0))
    assert (shown[:, 4:] == round(0.35 * gray + 0.65 * 255)).all()


def test_a_word_is_where_the_largest_strong_part_of_its_map_is():
    word = torch.zeros(8, 16)
    word[2:5, 4:8] = 1.0
    word[7, 15] = 0.9  # a speck elsewhere
    word[2:5, 8] = 0.4  # too weak
    assert place_of(word) == (3 / 16, 1 / 8, 9 / 16, 6 / 8)
