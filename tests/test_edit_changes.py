"""What ``attncontrol edit`` makes of its settings."""

import pytest
import torch

from attncontrol.batch.edit_changes import edits_for, place_of
from attncontrol.batch.edit_methods import METHODS, edits_of
from attncontrol.batch.settings import Editing, asked
from attncontrol.cli import changes
from attncontrol.edits import LocalBlend, Move, Regions, Remove, Replace
from attncontrol.errors import SettingError

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
    with pytest.raises(SettingError, match="no editing method 'p3p': p2p, replace"):
        edits_of("p3p", 0)
    with pytest.raises(SettingError, match=r"a strength is a number, such as p2p@0\.5"):
        edits_of("p2p@much", 0)


def test_a_word_is_where_the_largest_strong_part_of_its_map_is():
    word = torch.zeros(8, 16)
    word[2:5, 4:8] = 1.0
    word[7, 15] = 0.9  # a speck elsewhere
    word[2:5, 8] = 0.4  # too weak
    assert place_of(word) == (3 / 16, 1 / 8, 9 / 16, 6 / 8)
