"""Attention among the cells of the picture, as objectives see it."""

import pytest
import torch

from attncontrol import Descent, Where, steer
from attncontrol.errors import UnsupportedError
from attncontrol.losses.self_cross import SelfCross
from tests.reference.loops import Softmax
from tests.test_families import ALL, run

WHERE = {
    "sd": Where(kind="cross", layers=("up_blocks.1.attentions.0",)),
    "pixart": Where(kind="cross", layers=("transformer_blocks.0",)),
    "sd35": Where(kind="joint", layers=("transformer_blocks.0",)),
    "flux": Where(kind="joint", layers=("single_transformer_blocks.1",)),
    "lumina2": Where(kind="joint", layers=("layers.0",)),
    "hunyuandit": Where(kind="cross", layers=("blocks.0",)),
}
SITES = {
    "sd": "up_blocks.1.attentions.0.transformer_blocks.0.attn1",
    "pixart": "transformer_blocks.0.attn1",
    "sd35": "transformer_blocks.0.attn",
    "flux": "single_transformer_blocks.1.attn",
    "lumina2": "layers.0.attn",
    "hunyuandit": "blocks.0.attn1",
}
PICTURE = {"sd35": slice(24), "flux": slice(16, None)}
STILL = Descent(step_size=0.0, thresholds={}, guided=1.0)


class Seen:
    """Keeps what it is shown."""

    self_attention = True

    def __init__(self):
        self.maps = []

    def __call__(self, maps):
        self.maps.append(maps.picture().detach())
        return maps.mean().flatten(1).sum(1)


@pytest.mark.parametrize("name", WHERE)
def test_pictures_are_the_softmax_of_the_same_block(name, monkeypatch):
    pipe = ALL[name]()
    seen = Seen()
    with steer(pipe, seen, where=WHERE[name], descent=STILL):
        run(name, pipe)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    softmax = Softmax(monkeypatch)
    kept = []
    denoiser.get_submodule(SITES[name]).register_forward_hook(lambda *_: kept.append(softmax.seen[-1]))
    run(name, pipe)
    conditional = kept[:: 2 if name == "lumina2" else 1]
    assert len(seen.maps) == len(conditional) == 2
    for ours, theirs in zip(seen.maps, conditional, strict=True):
        picture = PICTURE.get(name, slice(None))
        if name == "lumina2":
            picture = slice(theirs.shape[-1] - 24, None)
        mean = theirs[-1:].mean(1)[:, picture, picture]
        expected = mean / mean.sum(-1, keepdim=True)
        tolerance = 1e-4 if name == "hunyuandit" else 1e-9
        torch.testing.assert_close(ours.flatten(3).flatten(1, 2), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["sd", "sd3", "flux", "pixart"])
def test_steering_by_self_attention_and_checkpointing(name):
    pipe = ALL[name]()
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    plain, guided = run(name, pipe), []
    for switch in (denoiser.disable_gradient_checkpointing, denoiser.enable_gradient_checkpointing):
        switch()
        descent = Descent(step_size=20.0, guided=1.0, thresholds={})
        with steer(pipe, SelfCross(["cat", "turtle"]), where=Where(kind=("cross", "joint")), descent=descent) as trace:
            guided.append(run(name, pipe))
        assert all(0 < loss < 2 for step in trace.steps for loss in step.losses)
    assert (guided[0] - plain).abs().max() > 1e-4
    torch.testing.assert_close(guided[0], guided[1], rtol=0, atol=1e-9)


def test_linear_self_attention_has_no_map():
    pipe = ALL["sana"]()
    with pytest.raises(UnsupportedError, match="no self-attention with a map"), steer(pipe, SelfCross(["cat"])):
        run("sana", pipe)
