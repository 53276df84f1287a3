"""ReGround on GLIGEN blocks of diffusers, against the block written out."""

import pytest
import torch
from diffusers import StableDiffusionGLIGENPipeline, UNet2DConditionModel

from attncontrol.edits import KeyMask, ReGround
from attncontrol.errors import SiteError
from attncontrol.verbs.edit import edit
from attncontrol.verbs.record import record
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import sd
from tests.reference.blocks import boxes_beside_texts

PROMPTS = ["a red cat and a frog", "a turtle"]
BOXES = {"gligen_phrases": ["a cat", "a frog"], "gligen_boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]}


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=16, in_channels=4,
        out_channels=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=32,
        attention_head_dim=(2, 4), norm_num_groups=8, attention_type="gated",
    )  # fmt: skip
    for name, parameter in unet.named_parameters():
        if "alpha" in name:
            parameter.data.fill_(0.7)
        elif "fuser" in name or "attn2" in name:
            parameter.data.mul_(3)
    return tiny_sd(unet=unet, cls=StableDiffusionGLIGENPipeline)


def run(pipe, steps=2, beta=1.0, **call):
    return pipe(
        PROMPTS, height=32, width=48, num_inference_steps=steps, output_type="latent",
        generator=torch.Generator().manual_seed(0), gligen_scheduled_sampling_beta=beta,
        **BOXES | call,
    ).images  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_equals_the_block_written_out(pipe, scale):
    plain = run(pipe, guidance_scale=scale)
    with boxes_beside_texts(pipe.unet):
        expected = run(pipe, guidance_scale=scale)
    with edit(pipe, ReGround()):
        edited = run(pipe, guidance_scale=scale)
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-10)
    assert (edited - plain).flatten(1).abs().amax(1).min() > 1e-3
    assert torch.equal(run(pipe, guidance_scale=scale), plain)


def test_steps_without_boxes_stay_and_others_compose(pipe):
    plain = run(pipe, beta=0.0)
    with edit(pipe, ReGround()):
        assert (run(pipe, beta=0.0) - plain).abs().max() < 1e-10
    with (
        record(pipe, ["cat"]) as maps,
        edit(pipe, ReGround()),
        edit(pipe, KeyMask((0.0, 0.0, 0.5, 1.0))),
    ):
        assert run(pipe).isfinite().all()
    assert maps["cat"].shape[:2] == (2, 4)


def test_models_without_boxes_are_refused():
    with pytest.raises(SiteError, match=r"no module of UNet2DConditionModel is '\*\.fuser'"):
        edit(sd(), ReGround()).__enter__()
