"""Edits of latents and of other modules beside ``steer``: what it does to the source stays."""

import pytest
import torch

from attncontrol.edits import AddIt, PlugAndPlay, Remove, Replace
from attncontrol.objectives.descent import Descent
from attncontrol.verbs.edit import edit
from attncontrol.verbs.record import record
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


@pytest.mark.parametrize("third", ["a blue cat and a frog", "a red cat"])
def test_what_is_seen_of_an_image_does_not_depend_on_the_others(third):
    """Of the last two the source's attention goes to other tokens, or to fewer."""
    pipe, prompts = sd(), ["a red cat and a frog", "a blue cat and a frog", third]
    descent = Descent(step_size=3.0, thresholds={}, guided=1.0)
    made = []
    for count in (2, 3):
        with (
            steer(pipe, brighter, descent=descent),
            record(pipe, ["cat"]) as maps,
            edit(pipe, Replace(cross=1.0)),
        ):
            pictures = run("sd", pipe, prompts[:count], seed=[0] * count)
        made.append((pictures, dict(maps.layers)))
    (two, seen), (three, seen_too) = made
    torch.testing.assert_close(three[:2], two, rtol=0, atol=1e-9)
    for name, means in seen.items():
        torch.testing.assert_close(seen_too[name][:2], means, rtol=0, atol=1e-6)
