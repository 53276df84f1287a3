"""Ways to call a pipeline while it is steered, against loops written out in float64: several
pictures of a prompt, callbacks, own schedules, parts of schedules."""

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)

from attncontrol import Descent, Where, steer
from attncontrol.running.solvers import stage_of
from tests.kit.sd import LAYER, Reference
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import sdxl

PROMPTS, CAT = ["a cat and a turtle", "a cat with a frog"], 2
DESCENT, SIZE, GUIDANCE = Descent(step_size=60.0, thresholds={}, guided=1.0), (32, 64), 3.0
SDXL_LAYER = "up_blocks.0.attentions.0.transformer_blocks.0.attn2"


def less_cat(maps):
    return maps.mean()[..., CAT].flatten(1).mean(1)


def noise(count, height=4, width=8):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 4, height, width, generator=generator, dtype=torch.float64)


def networks(pipe, images=1):
    """(x, t, branches) -> predictions, by the texts of all images."""
    texts = dict(zip(("cond", "uncond"), pipe.encode_prompt(PROMPTS, "cpu", images, True)[:2],
                     strict=True))  # fmt: skip
    return lambda x, t, branch: pipe.unet(x, t, texts[branch]).sample


def sdxl_networks(pipe):
    cond, uncond, pooled, no_pooled = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=True)
    ids = torch.tensor([[*SIZE, 0, 0, *SIZE]], dtype=torch.float64).repeat(2, 1)

    def predict(x, t, branch):
        text, pool = (cond, pooled) if branch == "cond" else (uncond, no_pooled)
        added = {"text_embeds": pool, "time_ids": ids}
        return pipe.unet(x, t, text, added_cond_kwargs=added).sample

    return predict


@torch.no_grad()
def by_hand(pipe, predict, z, times, after=None, layer=LAYER):
    """Descent on the attention to the cat in every step, guidance, the step of the scheduler."""
    s, total, i = pipe.scheduler, len(times), -1
    if isinstance(s, HeunDiscreteScheduler):
        total = (total + 1) // 2
    for t in times:
        c = float(s.scale_model_input(torch.ones(1, dtype=z.dtype), t))
        if not stage_of(s):
            i += 1
            with torch.enable_grad(), Reference(pipe, layer) as maps:
                x = (c * z).requires_grad_()
                predict(x, t, "cond")
                loss = maps[0].mean(1)[..., CAT].mean(1).sum()
                (gradient,) = torch.autograd.grad(loss, x)
            z = z - DESCENT.alpha(i, total, 60.0) * gradient / c
        uncond, cond = (predict(c * z, t, branch) for branch in ("uncond", "cond"))
        z = s.step(uncond + GUIDANCE * (cond - uncond), t, z).prev_sample
        z = z if after is None else after(z)
    return z


def steered(pipe, layer=LAYER, **call):
    """Latents and trace."""
    height, width = SIZE
    call = {"height": height, "width": width, "num_inference_steps": 4} | call
    with steer(pipe, less_cat, where=Where(layers=(layer,)), descent=DESCENT) as trace:
        images = pipe(PROMPTS, guidance_scale=GUIDANCE, output_type="latent", **call).images
    return images, trace


def same(ours, theirs):
    assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()


@pytest.fixture(scope="module")
def shared():
    pipe = tiny_sd()
    return pipe, pipe.scheduler


@pytest.fixture
def sd(shared):
    pipe, pipe.scheduler = shared
    return pipe


def test_several_pictures_of_every_prompt(sd):
    ours, _ = steered(sd, latents=noise(4), num_images_per_prompt=2)
    same(ours, by_hand(sd, networks(sd, images=2), noise(4), set_times(sd)))


def set_times(pipe, steps=4, **how):
    pipe.scheduler.set_timesteps(**(how or {"num_inference_steps": steps}))
    return pipe.scheduler.timesteps


def test_a_callback_that_changes_the_latents(sd):
    def after(_pipe, _i, _t, given):
        return {"latents": 0.9 * given["latents"] + 0.05}

    ours, _ = steered(sd, latents=noise(2), callback_on_step_end=after)
    same(ours, by_hand(sd, networks(sd), noise(2), set_times(sd), lambda z: 0.9 * z + 0.05))


def test_a_callback_that_interrupts(sd):
    def after(pipe, i, _t, _given):
        pipe._interrupt = i == 1
        return {}

    ours, trace = steered(sd, latents=noise(2), callback_on_step_end=after)
    assert [step.index for step in trace.steps] == [0, 1]
    same(ours, cut(sd))
    whole, trace = steered(sd, latents=noise(2))
    assert [step.index for step in trace.steps] == [0, 1, 2, 3]
    same(whole, by_hand(sd, networks(sd), noise(2), set_times(sd)))


def cut(pipe):
    """The first two of four steps."""
    kept = []
    by_hand(pipe, networks(pipe), noise(2), set_times(pipe), lambda z: kept.append(z) or z)
    return kept[1]


@pytest.mark.parametrize(
    "own", [{"timesteps": [950, 700, 300, 40]}, {"sigmas": [12.0, 5.0, 1.5, 0.4]}], ids=str
)
def test_own_schedules(sd, own):
    sd.scheduler = EulerDiscreteScheduler.from_config(sd.scheduler.config)
    ours, trace = steered(sd, latents=noise(2), num_inference_steps=None, **own)
    times = set_times(sd, **own)
    assert [step.timestep for step in trace.steps] == [float(t) for t in times]
    start = noise(2) * float(sd.scheduler.init_noise_sigma)
    same(ours, by_hand(sd, networks(sd), start, times))


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_image_to_image_from_a_part_of_the_schedule(sd, scheduler):
    pipe = StableDiffusionImg2ImgPipeline(**sd.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler.from_config(sd.scheduler.config)
    start = noise(2).flip(0)
    generator = torch.Generator().manual_seed(3)
    ours, trace = steered(
        pipe, image=start, strength=0.6, num_inference_steps=5, generator=generator,
        height=None, width=None,
    )  # fmt: skip
    assert [step.index for step in trace.steps] == [0, 1, 2]
    s = pipe.scheduler
    first = 2 * s.order  # the last three of five steps
    times = set_times(pipe, steps=5)[first:]
    s.set_begin_index(first)
    same(ours, by_hand(pipe, networks(pipe), start + float(s.sigmas[first]) * noise(2), times))


def test_a_base_and_a_refiner():
    """Of SDXL: the base makes the first part of the schedule, an image to image the rest."""
    base = sdxl()
    refiner = StableDiffusionXLImg2ImgPipeline(**base.components, requires_aesthetics_score=False)
    refiner.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 5, "layer": SDXL_LAYER}
    half, trace = steered(base, latents=noise(2), denoising_end=0.6, **call)
    assert [step.index for step in trace.steps] == [0, 1, 2]
    end, trace = steered(
        refiner, image=half, denoising_start=0.6, height=None, width=None, **call
    )  # fmt: skip
    assert [step.index for step in trace.steps] == [0, 1]
    predict, s = sdxl_networks(base), base.scheduler
    times = set_times(base, steps=5)
    z = by_hand(base, predict, noise(2) * float(s.init_noise_sigma), times[:3], layer=SDXL_LAYER)
    same(half, z)
    times = set_times(refiner, steps=5)
    refiner.scheduler.set_begin_index(3)
    same(end, by_hand(refiner, predict, z, times[3:], layer=SDXL_LAYER))
