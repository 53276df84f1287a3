"""Quantised weights: gradients are those of the weights that they stand for, or refused."""

import pytest
import torch
from torch import nn

from attncontrol import Descent, record, steer
from attncontrol.errors import ModelError
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import run
from tests.kit.zoo import flux

DESCENT = Descent(step_size=20.0, thresholds={}, guided=1.0)


class Eight(nn.Linear):
    """Weights of eight bits, a scale for every row, as weight-only quantisation keeps them."""

    def __init__(self, of):
        super().__init__(of.in_features, of.out_features, of.bias is not None, dtype=torch.float64)
        self.bias, peak = of.bias, of.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", peak)
        whole = (of.weight.detach() / peak).round().to(torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)

    def forward(self, given):
        return nn.functional.linear(given, self.weight * self.scale, self.bias)


class EightBoth(Eight):
    """And so are the inputs, rounded anew in every call."""

    def forward(self, given):
        peak = given.detach().abs().amax(-1, keepdim=True) / 127
        whole = (given.detach() / peak).round().to(torch.int8)
        return super().forward(whole * peak)


def with_layers(make):
    """FLUX with other linear layers in its blocks."""
    pipe = flux()
    for blocks in (pipe.transformer.transformer_blocks, pipe.transformer.single_transformer_blocks):
        for parent in list(blocks.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is nn.Linear:
                    setattr(parent, name, make(layer))
    return pipe


def plain(of):
    """What quantised weights stand for."""
    eight, layer = Eight(of), nn.Linear(of.in_features, of.out_features, dtype=torch.float64)
    layer.weight, layer.bias = nn.Parameter(eight.weight * eight.scale), of.bias
    return layer


def steered(pipe):
    with steer(pipe, AttendAndExcite(["cat"]), descent=DESCENT), record(pipe, ["cat"]) as maps:
        latents = run("flux", pipe)
    return latents, maps["cat"]


def test_weights_of_eight_bits_have_the_gradients_of_what_they_stand_for():
    pipe = with_layers(Eight)
    found, expected = steered(pipe), steered(with_layers(plain))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert (found[0] - run("flux", pipe)).abs().max() > 1e-3


def test_inputs_of_eight_bits_are_refused_by_steer_alone():
    pipe = with_layers(EightBoth)
    latents = run("flux", pipe)
    with record(pipe, ["cat"]):
        assert torch.equal(run("flux", pipe), latents)
    layer = r"transformer_blocks\.0\.norm1\.linear \(EightBoth\) rounds what goes into it"
    with pytest.raises(ModelError, match=layer):
        steered(pipe)
    assert torch.equal(run("flux", pipe), latents)


def test_weights_of_eight_bit_floats_that_are_cast_layer_by_layer():
    """Steps go down the loss at the weights that are there."""
    pipe = flux()
    pipe.to(torch.float32)
    pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    with steer(pipe, AttendAndExcite(["cat"]), descent=DESCENT) as trace:
        run("flux", pipe)
    assert all(step.moves[0] > 0 for step in trace.steps)
