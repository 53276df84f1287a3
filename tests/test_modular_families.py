"""Modular pipelines of the newer families equal the plain ones of the same weights and noise."""

import numpy as np
import pytest
import torch

from attncontrol import Descent, edit, locate, record, steer
from attncontrol.attention.sites import TEXT
from attncontrol.edits import Reweight
from attncontrol.losses import AttendAndExcite
from tests.kit.modular import CASES, PROMPTS, Pair

TOLERANCE = 1e-5  # pipelines compute the noise in float32


@pytest.fixture(scope="module", params=list(CASES))
def pair(request):
    return Pair(CASES[request.param])


def test_records_equal_those_of_the_plain_pipeline(pair):
    branches = pair.case.branches

    def control(pipe):
        return record(pipe, branches=branches, keep=["step", "head"])

    expected, pictures = pair.run(pair.plain, control)
    maps, same = pair.run(pair.modular, control)
    _, untouched = pair.run(pair.modular)
    assert np.array_equal(same, untouched)
    np.testing.assert_allclose(same, pictures, rtol=0, atol=TOLERANCE)
    assert maps.prompts == expected.prompts == tuple(PROMPTS[: pair.case.prompts])
    assert (maps.timesteps, maps.branches) == (expected.timesteps, branches)
    for branch in branches:
        own, other = maps.of(branch), expected.of(branch)
        assert own.tokens == other.tokens
        assert list(own.layers) == list(other.layers)
        for name, layer in own.layers.items():
            torch.testing.assert_close(layer, other.layers[name], rtol=0, atol=TOLERANCE)


def test_words_are_edited_and_located_as_in_the_plain_pipeline(pair):
    def control(pipe):
        return edit(pipe, Reweight({"red": 4.0}))

    (_, expected), (_, pictures) = (pair.run(pipe, control) for pipe in (pair.plain, pair.modular))
    np.testing.assert_allclose(pictures, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(expected - pair.run(pair.plain)[1]).max() > 10 * TOLERANCE
    with pair.patched():
        found = [
            locate(pipe, PROMPTS[0], "turtle", **pair.case.call)
            for pipe in (pair.plain, pair.modular)
        ]
    assert found[0] == found[1]


def test_steering_equals_that_of_the_plain_pipeline(pair):
    descent = Descent(step_size=5.0, thresholds={})

    def control(pipe):
        return steer(pipe, AttendAndExcite(["red"]), descent=descent, where=TEXT)

    (one, expected), (other, pictures) = (
        pair.run(pipe, control) for pipe in (pair.plain, pair.modular)
    )
    np.testing.assert_allclose(pictures, expected, rtol=0, atol=TOLERANCE)
    for step, same in zip(one.steps, other.steps, strict=True):
        np.testing.assert_allclose(step.losses, same.losses, rtol=0, atol=TOLERANCE)
