"""Qwen-Image 2.1 keeps the keys and values of the text from its first step: passes that are added
read those of their rows and leave the pipeline's own alone, so that all is as without keeping."""

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21FlexAttnProcessor

from attncontrol import Descent, Where, edit, perturb, record, steer
from attncontrol.edits import MutualAttention, Reweight, SmoothedQuery
from attncontrol.errors import BackendError
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from tests.kit.zoo_newer import qwenimage21

PROMPTS = ["a red cat and a turtle", "a dog"]
JOINT = Where(kind="joint")


@pytest.fixture(scope="module")
def pipe():
    return qwenimage21()


def run(pipe, **options):
    return pipe(
        PROMPTS, negative_prompt=["a frog", ""], true_cfg_scale=2.0, height=64, width=96,
        num_inference_steps=3, output_type="latent", generator=torch.Generator().manual_seed(0),
        **options,
    ).images  # fmt: skip


def refined(pipe):
    """Until the loss of each picture is low enough: passes of one of them among others."""
    descent = Descent(step_size=5.0, thresholds={0.0: 0.9, 0.4: 0.8}, max_refinements=2)
    return steer(pipe, AttendAndExcite(["a"]), descent=descent)


CONTROLS = {
    "steer": refined,
    "perturb": lambda pipe: perturb(pipe, SmoothedQuery(2.0), where=JOINT, scale=2.0),
    "edit": lambda pipe: edit(pipe, Reweight({"a": 4.0})),
    "of a source": lambda pipe: edit(pipe, MutualAttention(), where=JOINT),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_kept_keys_are_those_of_every_step(pipe, name):
    results = []
    for keeps in (True, False):
        with CONTROLS[name](pipe):
            results.append(run(pipe, use_kv_cache=keeps))
    torch.testing.assert_close(*results, rtol=0, atol=1e-9)
    assert (results[0] - run(pipe)).abs().max() > 1e-3


def test_what_is_seen_of_pictures_does_not_depend_on_keeping(pipe):
    seen = []
    for keeps in (True, False):
        with record(pipe, branches=("cond", "uncond"), keep=("head", "step")) as maps:
            run(pipe, use_kv_cache=keeps)
        seen.append(maps)
    for branch in ("cond", "uncond"):
        kept, other = (maps.of(branch).layers for maps in seen)
        for name, layer in kept.items():
            torch.testing.assert_close(layer, other[name], rtol=0, atol=1e-6)


def test_the_processor_of_one_call_is_refused_by_name(pipe):
    processors = pipe.transformer.attn_processors
    pipe.transformer.set_attn_processor(QwenImage21FlexAttnProcessor())
    try:
        with pytest.raises(BackendError, match=r"set_attn_processor\(QwenImage21AttnPr"):
            record(pipe, ["dog"]).__enter__()
    finally:
        pipe.transformer.set_attn_processor(processors)


def test_latents_of_pictures_are_those_of_the_pipeline(pipe):
    pictures = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)).double()
    opaque = torch.cat([pictures, torch.ones(2, 1, 64, 96)], 1)[:, :, None]
    expected = pipe._encode_vae_image(opaque, None)[:, :, 0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(family_of(pipe).encode(pipe, pictures), expected, rtol=0, atol=1e-9)
