"""Edits of latents and of other modules beside ``steer``: what it does to the source stays."""

import pytest
import torch

from attncontrol.edits import AddIt, PlugAndPlay, Remove
from attncontrol.objectives.descent import Descent
from attncontrol.verbs.edit import edit
from attncontrol.verbs.steer import steer
from tests.kit.runs import run
from tests.kit.zoo import flux, sd

PROMPTS = ["a red cat", "a blue cat and a frog"]
BOX = (0.25, 0.0, 0.5, 0.5)
CASES = {
    "plug and play": (sd, PlugAndPlay()),
    "remove": (flux, Remove(BOX)),
    "add": (flux, AddIt("frog", gamma="auto")),
}


def brighter(maps):
    return maps.mean()[..., 1].flatten(1).mean(1)


@pytest.mark.parametrize("case", CASES)
def test_the_source_is_steered_as_it_is_alone(case):
    make, what = CASES[case]
    pipe, name = make(), make.__name__
    descent = Descent(step_size=3.0, thresholds={}, guided=1.0)
    with steer(pipe, brighter, descent=descent):
        alone = run(name, pipe, PROMPTS, height=32, width=48)
    with steer(pipe, brighter, descent=descent), edit(pipe, what):
        both = run(name, pipe, PROMPTS, height=32, width=48)
    assert torch.equal(alone[0], both[0])
    assert (alone[1] - both[1]).abs().max() > 1e-3
