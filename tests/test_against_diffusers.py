"""diffusers' own, deprecated Attend-and-Excite pipeline on the same random weights."""

import pytest
import torch
from diffusers import StableDiffusionAttendAndExcitePipeline

from attncontrol import Descent, Where, steer
from attncontrol.losses import AttendAndExcite
from tests.kit.tiny import tiny_sd

PROMPTS = ["a cat and a turtle", "a red dog with a frog"]


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_same_latents_as_diffusers_on_ddim():
    """float32, batch of two, non-square, refinements included. Its attn_res is (height, width) in
    spite of its default."""
    pipe = tiny_sd(dtype=torch.float32)
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    theirs = StableDiffusionAttendAndExcitePipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    call = {
        "num_inference_steps": 10,
        "height": 64,
        "width": 96,
        "guidance_scale": 5.0,
        "output_type": "latent",
    }
    plain = pipe(PROMPTS, latents=latents, **call).images
    expected = theirs(
        PROMPTS, token_indices=[[2, 5, 6], [3, 6]], latents=latents, attn_res=(4, 6),
        scale_factor=10, max_iter_to_alter=5, thresholds={0: 0.05, 2: 0.5}, **call,
    ).images  # fmt: skip
    words = {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog", "frog"]}
    descent = Descent(step_size=10.0, thresholds={0.0: 0.05, 0.2: 0.5})
    with steer(
        pipe, AttendAndExcite(words), where=Where(kind="cross", stride=2), descent=descent
    ) as trace:
        ours = pipe(PROMPTS, latents=latents, **call).images
    assert max(step.refinements[1] for step in trace.steps) > 1
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (ours - plain).abs().max() > 0.1
