"""Variants of the pipelines: what works beside them and what is refused by name."""

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from diffusers import (
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    PixArtSigmaPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from peft import LoraConfig
from PIL import Image

from attncontrol import Descent, Where, record, steer
from attncontrol.errors import BackendError
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import run
from tests.kit.tiny import tiny_sd, with_controlnet
from tests.kit.zoo import flux, pixart, sd3, sdxl

WORDS = ["cat", "turtle"]
OBJECTIVE = AttendAndExcite(WORDS)
STEEP = Descent(step_size=20.0, thresholds={})
ANY = Where(kind=("cross", "joint"))


def guided(pipe, call):
    """Latents plain, recorded and steered, and the map of a word in the steered run."""
    plain = call()
    with record(pipe, WORDS):
        recorded = call()
    with steer(pipe, OBJECTIVE, where=ANY, descent=STEEP), record(pipe, WORDS) as maps:
        steered = call()
    assert torch.equal(plain, recorded)
    assert torch.equal(plain, call())
    assert (steered - plain).abs().max() > 1e-4
    return steered, maps["cat"]


def same(one, other, tolerance=1e-9):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def picture(seed=0, size=(96, 64)):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    )


IMAGE_TO_IMAGE = {
    "sdxl": (sdxl, StableDiffusionXLImg2ImgPipeline, {}),
    "sd3": (
        sd3,
        StableDiffusion3Img2ImgPipeline,
        {"max_sequence_length": 16, "height": 64, "width": 96},
    ),
    "flux": (flux, FluxImg2ImgPipeline, {"max_sequence_length": 16, "height": 64, "width": 96}),
}


@pytest.mark.parametrize("name", IMAGE_TO_IMAGE)
def test_image_to_image(name):
    make, cls, extra = IMAGE_TO_IMAGE[name]
    source = make()
    pipe = cls(**source.components)
    pipe.set_progress_bar_config(disable=True)

    def call():
        generator = torch.Generator().manual_seed(0)
        return pipe(
            "a red cat and a turtle", image=picture(), strength=0.6, num_inference_steps=5,
            output_type="latent", generator=generator, **extra,
        ).images  # fmt: skip

    _, maps = guided(pipe, call)
    assert maps.shape[-2:] == (4, 6)
    with steer(
        pipe, OBJECTIVE, where=ANY, descent=Descent(step_size=1.0, guided=1.0, thresholds={})
    ) as trace:
        call()
    assert [step.index for step in trace.steps] == [0, 1, 2]


def test_pixart_sigma_is_steered_as_pixart_alpha():
    alpha = pixart()
    sigma = PixArtSigmaPipeline(**alpha.components)
    sigma.set_progress_bar_config(disable=True)
    options = {"max_sequence_length": 24, "use_resolution_binning": False}
    found = [
        guided(pipe, lambda pipe=pipe: run("pixart", pipe, **options)) for pipe in (alpha, sigma)
    ]
    same(*found)


def test_inpainting():
    pipe = FluxInpaintPipeline(**flux().components)
    pipe.set_progress_bar_config(disable=True)
    mask = Image.fromarray(np.uint8(np.tri(64, 96) * 255))
    guided(
        pipe,
        lambda: pipe(
            "a red cat and a turtle", image=picture(), mask_image=mask, height=64, width=96,
            strength=0.9, num_inference_steps=3, max_sequence_length=16, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images,
    )  # fmt: skip


def test_controlnet_rows_follow_their_images():
    pipe = with_controlnet(tiny_sd())
    prompts = ["a red cat and a turtle", "a cat with a turtle"]
    latents = torch.randn(
        2, 4, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def call(which):
        return pipe(
            [prompts[i] for i in which], image=[picture(i) for i in which],
            latents=latents[which].clone(), output_type="latent", num_inference_steps=2, height=64,
            width=96,
        ).images  # fmt: skip

    both, maps = guided(pipe, lambda: call([0, 1]))
    for i in range(2):
        alone, map_alone = guided(pipe, lambda i=i: call([i]))
        same((both[i], maps[i]), (alone[0], map_alone[0]), 1e-7)


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_lora(name):
    pipe = {"sd": tiny_sd, "sd3": sd3, "flux": flux}[name]()
    denoiser = family_of(pipe).denoiser(pipe)
    before = guided(pipe, lambda: run(name, pipe))
    torch.manual_seed(0)
    denoiser.add_adapter(
        LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v"])
    )
    denoiser.double()
    with_lora = guided(pipe, lambda: run(name, pipe))
    assert (before[1] - with_lora[1]).abs().max() > 1e-3
    assert all(
        parameter.requires_grad == ("lora" in key)
        for key, parameter in denoiser.named_parameters()
        if "lora" in key
    )
    denoiser.disable_adapters()
    same(guided(pipe, lambda: run(name, pipe)), before)


def test_ip_adapter_leaves_text_the_first_call():
    pipe = tiny_sd()
    plain = guided(pipe, lambda: run("sd", pipe))
    torch.manual_seed(0)
    keys = {}
    widths = [
        module.to_q.in_features
        for name, module in pipe.unet.named_modules()
        if name.endswith("attn2")
    ]
    for number, width in enumerate(widths):
        keys |= {f"{2 * number + 1}.to_{k}_ip.weight": torch.randn(width, 32) for k in "kv"}
    projection = {
        "proj.weight": torch.randn(4 * 32, 16), "proj.bias": torch.randn(4 * 32),
        "norm.weight": torch.ones(32), "norm.bias": torch.zeros(32),
    }  # fmt: skip
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": keys}])
    pipe.unet.double()
    assert any(isinstance(p, IPAdapterAttnProcessor2_0) for p in pipe.unet.attn_processors.values())
    embeds = [torch.randn(2, 1, 16, dtype=torch.float64)]
    adapted = guided(pipe, lambda: run("sd", pipe, ip_adapter_image_embeds=embeds))
    assert (adapted[0] - plain[0]).abs().max() > 1e-3
    with record(pipe) as maps:
        run("sd", pipe, ip_adapter_image_embeds=embeds)
    torch.testing.assert_close(maps.mean().sum(-1), torch.ones(1, 8, 12))  # over text alone
    assert all(
        isinstance(p, torch.nn.Module)
        for p in pipe.unet.attn_processors.values()
        if "IPAdapter" in type(p).__name__
    )


OFFLOADS = {
    "model": lambda pipe, _: pipe.enable_model_cpu_offload(device="cpu"),
    "group": lambda _, denoiser: denoiser.enable_group_offload(
        torch.device("cpu"), offload_type="leaf_level"
    ),
    "sequential": lambda _, denoiser: cpu_offload(denoiser, torch.device("cpu")),
    "device map": lambda _, denoiser: dispatch_model(denoiser, {"": "cpu"}, force_hooks=True),
}


@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_weights_that_leave_before_the_backward(name, kind, tmp_path):
    """Groups that are kept on disk leave nothing in their place, as those of an accelerator leave
    weights on another device."""
    pipe = {"sd": tiny_sd, "sd3": sd3}[name]()
    before = guided(pipe, lambda: run(name, pipe))
    family_of(pipe).denoiser(pipe).enable_group_offload(
        torch.device("cpu"), offload_type=kind, offload_to_disk_path=str(tmp_path),
        num_blocks_per_group=1 if kind == "block_level" else None,
    )  # fmt: skip
    same(guided(pipe, lambda: run(name, pipe)), before)


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_offloading_changes_nothing(name, offload):
    make = {"sd": tiny_sd, "sd3": sd3}[name]
    pipe = make()
    before = guided(pipe, lambda: run(name, pipe))
    OFFLOADS[offload](pipe, family_of(pipe).denoiser(pipe))
    same(guided(pipe, lambda: run(name, pipe)), before)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_fused_projections(name):
    pipe = {"sd": tiny_sd, "flux": flux}[name]()
    before = guided(pipe, lambda: run(name, pipe))
    family_of(pipe).denoiser(pipe).fuse_qkv_projections()
    same(guided(pipe, lambda: run(name, pipe)), before)


def test_tiling_of_the_decoder():
    pipe = tiny_sd()
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()
    with record(pipe, WORDS) as maps:
        run("sd", pipe, output_type="np")
    assert maps["cat"].shape == (1, 8, 12)


def refused(pipe, match, name):
    for context in (record(pipe, WORDS), steer(pipe, OBJECTIVE, where=ANY)):
        with pytest.raises(BackendError, match=match), context:
            run(name, pipe)


def test_sharded_attention_is_refused():
    pipe = flux()
    pipe.transformer.transformer_blocks[0].attn.processor._parallel_config = object()
    refused(pipe, "parallel", "flux")


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0])
def test_the_scale_of_adapters_holds_under_gradient_checkpointing(scale):
    pipe = tiny_sd()
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False)
    pipe.unet.add_adapter(lora)
    pipe.unet.double()
    layers = [module for module in pipe.unet.modules() if hasattr(module, "scale_layer")]
    before = [dict(layer.scaling) for layer in layers]

    def steered(**call):
        with steer(pipe, OBJECTIVE, where=ANY, descent=STEEP):
            return run("sd", pipe, cross_attention_kwargs=call)

    wanted, unscaled = steered(scale=scale), steered()
    pipe.unet.enable_gradient_checkpointing()
    torch.testing.assert_close(steered(scale=scale), wanted, rtol=0, atol=1e-9)
    assert (wanted - unscaled).abs().max() > 1e-4
    assert [dict(layer.scaling) for layer in layers] == before
