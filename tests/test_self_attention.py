"""Attention among the cells of the picture, as objectives see it."""

import pytest
import torch

from attncontrol import Descent, Where, steer
from attncontrol.errors import SettingError, SiteError
from attncontrol.losses.rearrange import Rearrange
from attncontrol.losses.self_cross import SelfCross
from attncontrol.objectives.objective import Objective
from tests.kit.runs import ALL, run
from tests.reference.loops import Softmax

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


class Seen(Objective):
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
    denoiser.get_submodule(SITES[name]).register_forward_hook(
        lambda *_: kept.append(softmax.seen[-1])
    )
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


class Outputs(Objective):
    """Keeps what attention among the cells puts out."""

    features = True

    def __init__(self):
        self.seen = []

    def __call__(self, maps):
        (layer,) = maps.features.values()
        self.seen.append(layer.detach())
        return layer.flatten(1).sum(1)


@pytest.mark.parametrize("name", ["sd", "pixart", "sd35", "flux"])
def test_features_are_the_outputs_of_the_same_block(name):
    pipe = ALL[name]()
    outputs = Outputs()
    with steer(pipe, outputs, where=WHERE[name], descent=STILL):
        run(name, pipe)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    module, kept = denoiser.get_submodule(SITES[name]), []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def within(*_):
        torch.nn.functional.scaled_dot_product_attention = lambda *args, **kwargs: (
            kept.append(kernel(*args, **kwargs)) or kept[-1]
        )

    def after(*_):
        torch.nn.functional.scaled_dot_product_attention = kernel

    handles = [module.register_forward_pre_hook(within), module.register_forward_hook(after)]
    try:
        run(name, pipe)
    finally:
        torch.nn.functional.scaled_dot_product_attention = kernel
        for handle in handles:
            handle.remove()
    first = kept[0][-1:, :, PICTURE.get(name, slice(None))].transpose(1, 2).flatten(2)
    torch.testing.assert_close(outputs.seen[0].flatten(1, 2), first, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["sd", "sd3", "flux", "pixart"])
def test_steering_by_self_attention_and_checkpointing(name):
    pipe = ALL[name]()
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    plain, guided = run(name, pipe), []
    for switch in (denoiser.disable_gradient_checkpointing, denoiser.enable_gradient_checkpointing):
        switch()
        descent = Descent(step_size=20.0, guided=1.0, thresholds={})
        with steer(
            pipe,
            SelfCross(["cat", "turtle"]),
            where=Where(kind=("cross", "joint")),
            descent=descent,
        ) as trace:
            guided.append(run(name, pipe))
        assert all(0 < loss < 2 for step in trace.steps for loss in step.losses)
    assert (guided[0] - plain).abs().max() > 1e-4
    torch.testing.assert_close(guided[0], guided[1], rtol=0, atol=1e-9)


def test_linear_self_attention_has_no_map():
    pipe = ALL["sana"]()
    with (
        pytest.raises(SiteError, match="no self-attention with a map"),
        steer(pipe, SelfCross(["cat"])),
    ):
        run("sana", pipe)


def test_rearranging_leaves_the_first_picture_alone():
    pipe, moves = ALL["sd"](), {"cat": (0.3, 0.0)}

    def two():
        generators = [torch.Generator().manual_seed(seed) for seed in (3, 3)]
        return pipe(
            ["a cat and a turtle"] * 2,
            num_inference_steps=2,
            generator=generators,
            output_type="latent",
        ).images

    plain, descent = two(), Descent(step_size=20.0, guided=1.0, thresholds={})
    with steer(
        pipe, Rearrange(moves=moves, appearances=["turtle"]), where=WHERE["sd"], descent=descent
    ) as trace:
        original, moved = two()
    assert torch.equal(original, plain[0])
    assert (moved - plain[1]).abs().max() > 1e-5
    assert all(step.losses[0] == 0 < step.losses[1] for step in trace.steps)
    with (
        pytest.raises(SettingError, match="takes no refinement"),
        steer(pipe, Rearrange(moves), descent=Descent()),
    ):
        pass
