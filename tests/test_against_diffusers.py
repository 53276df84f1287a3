"""Pipelines of diffusers on the same random weights: the deprecated one for Attend-and-Excite, and
the community's for prompt-to-prompt, where a copy of that is at hand."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionAttendAndExcitePipeline

from attncontrol import Descent, Where, edit, steer
from attncontrol.edits import Replace, Reweight
from attncontrol.losses import AttendAndExcite
from attncontrol.sprites.training.text import make_tokenizer
from tests.kit.tiny import tiny_sd, tiny_text_encoder
from tests.perf.p2p import LAST, MISSING, VARIABLE, community

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


RED, BLUE, INSERTED = "a red cat and a frog", "a blue cat and a frog", "a red fat cat and a frog"
STRONGER = {"equalizer_words": ["red"], "equalizer_strengths": [3.0]}
KINDS = {
    "replace": ([RED, BLUE, "a red cat and a dog"], {}, [Replace(cells=LAST)]),
    "of a word": (
        [RED, BLUE], {"n_cross_replace": {"default_": 0.8, "blue": 0.4}},
        [Replace(cells=LAST, words={"blue": 0.4})],
    ),
    "refine": ([RED, INSERTED], {}, [Replace(cells=LAST, swapped=False)]),
    "reweight": (
        [RED, RED], STRONGER | {"n_cross_replace": 1.0},
        [Replace(cells=LAST, cross=1.0), Reweight({"red": 3.0}, images=(1,))],
    ),
}  # fmt: skip


@pytest.mark.skipif(not Path(os.environ.get(VARIABLE, "")).is_file(), reason=MISSING)
@pytest.mark.filterwarnings("ignore:`_encode_prompt:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_same_latents_as_the_community_s_prompt_to_prompt(kind):
    """float32, non-square, larger than the self-attention that is replaced, classifier-free
    guidance on: without it theirs fails. It is made for 77 positions of text."""
    prompts, settings, edits = KINDS[kind]
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 77
    parts = {"tokenizer": tokenizer, "text_encoder": tiny_text_encoder(tokenizer)}
    pipe = tiny_sd(dtype=torch.float32, **parts)
    settings = {"n_cross_replace": 0.8, "n_self_replace": 0.4} | settings
    settings["edit_type"] = kind if kind in ("refine", "reweight") else "replace"
    latents = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    call = {
        "latents": latents.repeat(len(prompts), 1, 1, 1),
        "num_inference_steps": 5,
        "height": 128,
        "width": 192,
        "guidance_scale": 5.0,
        "output_type": "latent",
    }
    plain = pipe(prompts, **call).images
    with edit(pipe, edits[0]), edit(pipe, edits[-1]) if edits[1:] else nullcontext():
        ours = pipe(prompts, **call).images
    theirs = community(os.environ[VARIABLE])(**pipe.components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(prompts, cross_attention_kwargs=settings, **call).images
    size = expected.abs().max()
    assert (ours - expected).abs().max() < 1e-5 * size
    assert ((ours - plain)[1:].flatten(1).abs().amax(1) > 1e-3 * size).all()
