"""The training of the bundled models sees what their pipelines compute."""

import pytest
import torch

from attncontrol.sprites.training import flux, pixart, sd, sd3
from attncontrol.sprites.training.grounding import eager_attention
from attncontrol.sprites.training.text import MAX_TOKENS, make_t5_tokenizer, make_tokenizer, t5_ids
from attncontrol.sprites.training.vae import make_vae

PROMPTS = ["a red cat and a purple elephant", "a turtle, a dog and a clock", ""]


def clip_ids(prompts):
    return make_tokenizer()(
        prompts, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
    ).input_ids


def test_t5_ids_are_those_of_the_tokenizer():
    expected = make_t5_tokenizer()(
        PROMPTS, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
    ).input_ids
    assert torch.equal(t5_ids(clip_ids(PROMPTS)), expected)


@pytest.mark.parametrize("module", [sd, sd3, flux, pixart], ids=lambda module: module.RECIPE.name)
def test_predict_equals_the_pipeline(module, monkeypatch):
    torch.manual_seed(0)
    recipe = module.RECIPE
    parts = recipe.make().eval()
    denoiser = parts["unet" if recipe.name == "sd" else "transformer"]
    torch.nn.init.normal_(
        (denoiser.conv_out if recipe.name == "sd" else denoiser.proj_out).weight, std=0.1
    )
    vae = make_vae()
    vae.register_to_config(shift_factor=0.0)
    pipe = recipe.pipeline(parts, vae)
    pipe.set_progress_bar_config(disable=True)
    seen = {}
    denoiser.register_forward_hook(
        lambda _m, a, k, out: seen.update(a=a, k=k, out=out[0]), with_kwargs=True
    )
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    packed = latents if recipe.name != "flux" else pipe._pack_latents(latents, 2, 4, 16, 16)
    extra = {} if recipe.name == "sd" else {"max_sequence_length": MAX_TOKENS}
    if recipe.name == "pixart":
        extra |= {"clean_caption": False, "use_resolution_binning": False}
    size = {"height": 128, "width": 128}
    pipe(
        PROMPTS[:2],
        latents=packed,
        guidance_scale=1.0,
        num_inference_steps=1,
        output_type="latent",
        **size,
        **extra,
    )
    t = (
        torch.as_tensor(seen["k"].get("timestep", seen["a"][1] if len(seen["a"]) > 1 else None))
        .float()
        .expand(2)
    )
    t = t * 1000 if recipe.name == "flux" else t
    out = seen["out"] if recipe.name != "flux" else pipe._unpack_latents(seen["out"], 128, 128, 8)
    kept = []
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", eager_attention(kept))
    with torch.no_grad():
        predicted = recipe.predict(
            parts, latents, t, torch.stack([ids := clip_ids(PROMPTS[:2]), t5_ids(ids)], 1)
        )
    torch.testing.assert_close(predicted, out, rtol=0, atol=1e-4)
    assert out.std() > 0.01
    groups, positions = recipe.attended(kept)
    maps = [p for group in groups for p in group]
    sizes = {"sd": [7], "sd3": [6], "flux": [3, 6], "pixart": [12]}
    assert [len(group) for group in groups] == sizes[recipe.name]
    assert all(p.shape[2] == len(positions) and p.shape[1] in (64, 256) for p in maps)
    size = (
        sum(p.numel() for p in parts.parameters()) * 2
        + sum(p.numel() for p in vae.parameters()) * 2
    )
    assert size < 12e6
