"""Photos of noise, their latents, and tiny models as functions of one picture."""

import numpy as np
import torch
from diffusers import DDIMScheduler

from tests.kit.tiny import tiny_sd
from tests.kit.zoo import EXTRA

SIZE = (64, 96)


def photos(count=2):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(count)]


def clean(pipe, pictures):
    pixels = torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).double() / 127.5 - 1
    vae = pipe.vae.config
    with torch.no_grad():
        mean = pipe.vae.encode(pixels).latent_dist.mean
    return (mean - (vae.shift_factor or 0)) * vae.scaling_factor


def call(steps, **more):
    size = {"height": SIZE[0], "width": SIZE[1]}
    return {"num_inference_steps": steps, "output_type": "latent"} | size | more


def with_ddim(**config):
    """diffusers keeps the noise levels in float32."""
    pipe = tiny_sd()
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, set_alpha_to_one=False, **config
    )
    pipe.scheduler.alphas_cumprod = pipe.scheduler.alphas_cumprod.double()
    pipe.scheduler.final_alpha_cumprod = pipe.scheduler.alphas_cumprod[0]
    return pipe


def unet_of(pipe, prompt=None):
    """model(z, t) of one picture; without a prompt model(z, t, text), which has a gradient."""

    def model(z, t, text):
        return pipe.unet(z[None], t, encoder_hidden_states=text[None]).sample[0]

    if prompt is None:
        return model
    text = pipe.encode_prompt([prompt], "cpu", 1, False)[0][0]
    return torch.no_grad()(lambda z, t: model(z, t, text))


def flow_of(pipe, prompt):
    """The same of SD3."""
    text, _, pooled, _ = pipe.encode_prompt(
        prompt, prompt, prompt, do_classifier_free_guidance=False, **EXTRA["sd3"]
    )

    @torch.no_grad()
    def model(z, t):
        return pipe.transformer(
            z[None], timestep=t[None], encoder_hidden_states=text, pooled_projections=pooled
        ).sample[0]

    return model


def odd(pipe):
    """Statistics of the autoencoder that no pipeline can pass over."""
    vae = pipe.vae
    told = {"shift_factor": 0.37, "scaling_factor": 1.3}
    vae.register_to_config(**{name: value for name, value in told.items() if name in vae.config})
    if vae.config.get("latents_mean") is not None:
        channels = range(len(vae.config.latents_mean))
        vae.register_to_config(
            latents_mean=[0.1 * i - 0.2 for i in channels],
            latents_std=[0.5 + 0.3 * i for i in channels],
        )
    if hasattr(vae, "bn"):
        count = len(vae.bn.running_mean)
        vae.bn.running_mean.copy_(torch.linspace(-0.3, 0.4, count))
        vae.bn.running_var.copy_(torch.linspace(0.5, 2, count))
    return pipe


@torch.no_grad()
def reconstructed(pipe, pictures):
    """What the autoencoder makes of pictures [picture channel height width], in 0 .. 1."""
    pixels = torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).to(pipe.vae.dtype) / 127.5 - 1
    kind = type(pipe.vae).__name__
    of_videos = kind.startswith(("AutoencoderKLQwenImage", "AutoencoderKLWan"))
    if kind == "AutoencoderKLQwenImage21":  # with an opaque fourth channel
        pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    made = pipe.vae.encode(pixels[:, :, None] if of_videos else pixels)
    decoded = pipe.vae.decode(made.latent_dist.mean if hasattr(made, "latent_dist") else made[0])[0]
    return ((decoded[:, :, 0] if of_videos else decoded) / 2 + 0.5).clamp(0, 1)
