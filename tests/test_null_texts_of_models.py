"""NullText and NegativePrompt on models beside Stable Diffusion 1 and 2: what guidance changes is
the unconditional branch's, pooled texts and masks stay as the pipeline makes them."""

import pytest
import torch
from diffusers import DDIMScheduler

from attncontrol import invert, retrace
from attncontrol.errors import CallError
from attncontrol.inversion import NegativePrompt, NullText
from tests.kit.photos import SIZE, call, photos
from tests.kit.state import left_behind
from tests.kit.zoo import EXTRA, ZOO
from tests.reference import inversion as reference

PROMPTS = ["a red cat", "a blue frog and a car"]
STEPS, SCALE = 2, 3.0
NAMES = ["sdxl", "sd3", "pixart"]


def made(name):
    pipe = ZOO[name]()
    if name == "sdxl":
        pipe.scheduler = DDIMScheduler.from_config(
            pipe.scheduler.config, set_alpha_to_one=False, clip_sample=False
        )
    if name == "pixart":
        pipe.scheduler = DDIMScheduler(clip_sample=False)
    return pipe


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    name = request.param
    return name, made(name), EXTRA.get(name, {})


def branches(name, pipe, prompt):
    """(text, what else the denoiser is told) of the prompt and of the empty one."""
    if name == "sdxl":
        text, null, *pooled = pipe.encode_prompt(prompt)  # zeros for what is not given
        times = torch.tensor([[*SIZE, 0, 0, *SIZE]]).double()
        return [
            (states, {"added_cond_kwargs": {"text_embeds": one, "time_ids": times}})
            for states, one in zip((text, null), pooled, strict=True)
        ]
    if name == "sd3":
        text, null, *pooled = pipe.encode_prompt(prompt, prompt, prompt, max_sequence_length=16)
        return [
            (states, {"pooled_projections": one})
            for states, one in zip((text, null), pooled, strict=True)
        ]
    text, mask, null, others = pipe.encode_prompt(prompt, max_sequence_length=16)
    return [
        (states, {"encoder_attention_mask": one}) for states, one in ((text, mask), (null, others))
    ]


def predicted(name, pipe, z, t, text, more):
    denoiser = pipe.unet if name == "sdxl" else pipe.transformer
    found = denoiser(z[None], timestep=t[None], encoder_hidden_states=text, **more).sample[0]
    return found[: len(z)]


def step_of(name, pipe):
    """The scheduler's, from the papers; its noise levels are those of float32 in DDIM."""
    if name == "sd3":
        sigmas = pipe.scheduler.sigmas.double()
        return lambda i, z, m: z + (sigmas[i + 1] - sigmas[i]) * m
    own = pipe.scheduler
    level = reference.levels(own.alphas_cumprod, own.timesteps, own.final_alpha_cumprod)
    return lambda i, z, m: reference.ddim_step(z, m, level[i], level[i + 1])


def test_null_texts_are_those_of_the_paper(model):
    """The second of two pictures, its pooled text and mask being those of the empty prompt."""
    name, pipe, more = model
    method = NullText(SCALE, iterations=3)
    kept = invert(
        pipe, photos(), PROMPTS, method=method, size=SIZE, num_inference_steps=STEPS, **more
    )
    pipe.scheduler.set_timesteps(STEPS)
    (text, told), (null, blank) = branches(name, pipe, PROMPTS[1])
    found, end = reference.null_texts(
        lambda z, t: predicted(name, pipe, z, t, text, told),
        lambda z, t, null: predicted(name, pipe, z, t, null[None], blank),
        list(kept.latents[1]), null[0], step_of(name, pipe), pipe.scheduler.timesteps, SCALE, 3,
        1e-5,
    )  # fmt: skip
    assert torch.allclose(kept.embeddings[1], torch.stack(found), rtol=0, atol=1e-5)
    assert (kept.embeddings[1, -1] - null[0]).abs().max() > 1e-2
    with retrace(pipe, kept):
        back = pipe(PROMPTS, guidance_scale=SCALE, **call(STEPS, **more)).images
    assert torch.allclose(back[1], end, rtol=0, atol=1e-5)
    assert not left_behind(pipe)


def test_the_prompt_of_the_source_is_the_negative_one(model):
    """With its pooled text and mask."""
    _, pipe, more = model
    method = NegativePrompt()
    kept = invert(
        pipe, photos(1), PROMPTS[0], method=method, size=SIZE, num_inference_steps=STEPS, **more
    )
    with retrace(pipe, kept):
        found = pipe(PROMPTS, guidance_scale=SCALE, **call(STEPS, **more)).images
    noise, more = kept.latents[:, 0], call(STEPS, guidance_scale=SCALE, **more)
    one, other = (
        pipe(prompt, negative_prompt=PROMPTS[0], latents=noise, **more).images[0]
        for prompt in PROMPTS
    )
    assert torch.allclose(found[0], one, rtol=0, atol=1e-6)
    assert torch.allclose(found[1], other, rtol=0, atol=1e-6)


def test_models_without_a_second_branch_are_refused():
    pipe, more = ZOO["flux"](), EXTRA["flux"]
    message = r"NullText changes the unconditional branch, .* cond alone"
    with pytest.raises(CallError, match=message):
        invert(pipe, photos(1), "a cat", method=NullText(2.0), size=SIZE, num_inference_steps=1,
               **more)  # fmt: skip
    assert not left_behind(pipe)
