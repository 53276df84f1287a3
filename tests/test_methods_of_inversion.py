"""Methods of inversion that iterate, optimise or solve, against loops written from the papers."""

import math

import numpy as np
import pytest
import torch

from attncontrol import Trajectory, edit, invert, retrace
from attncontrol.edits import MutualAttention
from attncontrol.errors import CallError, CouplingError, SchedulerError
from attncontrol.inversion import FireFlow, FixedPoint, FlowEdit, NegativePrompt, NullText, RFSolver
from tests.kit.photos import call, clean, flow_of, photos, unet_of, with_ddim
from tests.kit.state import left_behind
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import EXTRA, ZOO
from tests.reference import inversion as reference

PROMPTS = ["a red cat", "a blue frog and a car"]
STEPS = 3
SOLVERS = {RFSolver(): (reference.rf_solved, 6), FireFlow(): (reference.fire_flowed, 4)}


@pytest.fixture(scope="module")
def pipe():
    return with_ddim()


@pytest.fixture(scope="module")
def flow():
    return ZOO["sd3"]()


@pytest.fixture(scope="module")
def tuned(pipe):
    method = NullText(4.0, iterations=3)
    return invert(pipe, photos(), PROMPTS, method=method, num_inference_steps=STEPS)


def levels(pipe):
    pipe.scheduler.set_timesteps(STEPS)
    alphas, times = pipe.scheduler.alphas_cumprod, pipe.scheduler.timesteps
    return alphas, times, pipe.scheduler.final_alpha_cumprod


def test_fixed_points(pipe):
    """With enough iterations a plain run goes back."""
    method = FixedPoint(iterations=3)
    path = invert(pipe, photos(), PROMPTS, method=method, num_inference_steps=STEPS).latents
    found = reference.fixed_point_inverted(
        unet_of(pipe, PROMPTS[1]), clean(pipe, photos())[1], *levels(pipe), 3
    )
    assert torch.allclose(path[1], torch.stack(found), rtol=0, atol=1e-6)


def test_fixed_points_converge():
    """Of a model that is flat enough a plain run from there goes back."""
    pipe, errors = with_ddim(), []
    with torch.no_grad():
        pipe.unet.conv_out.weight.mul_(0.03)
    for iterations in (1, 3, 9):
        method = FixedPoint(iterations)
        kept = invert(pipe, photos(1), "a cat", method=method, num_inference_steps=2)
        with retrace(pipe, kept):
            back = pipe(["a cat"], guidance_scale=1.0, **call(2)).images
        errors.append(float((back[0] - kept.latents[0, -1]).abs().max()))
    assert errors[0] > 4 * errors[1] > 40 * errors[2], errors
    assert errors[2] < 1e-3


def test_null_texts_are_those_of_the_paper(pipe, tuned):
    alphas, times, final = levels(pipe)
    level = reference.levels(alphas, times, final)
    null = pipe.encode_prompt([PROMPTS[1]], "cpu", 1, True, [""])[1]
    found, end = reference.null_texts(
        unet_of(pipe, PROMPTS[1]), unet_of(pipe), list(tuned.latents[1]), null[0],
        lambda i, z, m: reference.ddim_step(z, m, level[i], level[i + 1]), times, 4.0, 3, 1e-5,
    )  # fmt: skip
    assert torch.allclose(tuned.embeddings[1], torch.stack(found), rtol=0, atol=1e-6)
    with retrace(pipe, tuned):
        back = pipe(PROMPTS, guidance_scale=4.0, **call(STEPS)).images
    assert torch.allclose(back[1], end, rtol=0, atol=1e-6)


def test_a_tuning_that_was_stopped_goes_on(pipe, tuned, tmp_path):
    file = tmp_path / "tuned.safetensors"
    count, method = [0], NullText(4.0, iterations=3)

    def stop(*_):
        count[0] += 1
        if count[0] == 4:  # two on the way to noise, whose end has none, and two back
            raise KeyboardInterrupt
        return {}

    settings = {"method": method, "num_inference_steps": STEPS, "to": file}
    with pytest.raises(KeyboardInterrupt):
        invert(pipe, photos(), PROMPTS, callback_on_step_end=stop, **settings)
    begun = Trajectory.load(file)
    assert begun.embeddings.shape[:2] == (2, 2)
    with pytest.raises(CouplingError, match="2 of 3 steps are optimised"), retrace(pipe, begun):
        pipe(PROMPTS, **call(STEPS))
    seen = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: seen.append(1))
    whole = invert(pipe, photos(), PROMPTS, **settings)
    hook.remove()
    assert torch.equal(whole.embeddings, tuned.embeddings)
    assert torch.equal(Trajectory.load(file).embeddings, tuned.embeddings)
    assert len(seen) == 2 * STEPS  # hooks see the pipeline's own calls alone
    assert np.array_equal(whole.shown, tuned.shown)


def test_the_prompt_of_the_source_is_the_negative_one(pipe):
    """Guidance of the source cancels; the other image is guided away from the source's prompt."""
    kept = invert(pipe, photos(1), PROMPTS[0], method=NegativePrompt(), num_inference_steps=STEPS)
    with retrace(pipe, kept):
        found = pipe(PROMPTS, guidance_scale=5.0, **call(STEPS)).images
    noise = kept.latents[:, 0]
    one = pipe(PROMPTS[0], latents=noise, guidance_scale=1.0, **call(STEPS)).images[0]
    negative = {"negative_prompt": PROMPTS[0], "guidance_scale": 5.0}
    other = pipe(PROMPTS[1], latents=noise, **negative, **call(STEPS)).images[0]
    assert torch.allclose(found[0], one, rtol=0, atol=1e-9)
    assert torch.allclose(found[1], other, rtol=0, atol=1e-9)
    message = r"changes the unconditional branch, but .* cond alone: .* guidance_scale above 1"
    with pytest.raises(CallError, match=message), retrace(pipe, kept):
        pipe(PROMPTS, guidance_scale=1.0, **call(STEPS))
    assert not left_behind(pipe)


@pytest.mark.parametrize("method", SOLVERS, ids=lambda method: type(method).__name__)
def test_solvers_in_both_directions(flow, method):
    solve, evaluations = SOLVERS[method]
    more = EXTRA["sd3"]
    kept = invert(flow, photos(), PROMPTS, method=method, num_inference_steps=STEPS, **more)
    flow.scheduler.set_timesteps(STEPS)
    sigmas = flow.scheduler.sigmas.double()
    model, start = flow_of(flow, PROMPTS[1]), kept.latents[1, -1]
    found = solve(model, start, sigmas.flip(0))
    assert torch.allclose(kept.latents[1], torch.stack(found[::-1]), rtol=0, atol=1e-6)
    seen = []
    hook = flow.transformer.register_forward_pre_hook(lambda *_: seen.append(1))
    with retrace(flow, kept):
        back = flow(PROMPTS, guidance_scale=1.0, **call(STEPS, **more)).images
    hook.remove()
    assert torch.allclose(back[1], solve(model, kept.latents[1, 0], sigmas)[-1], rtol=0, atol=4e-6)
    assert len(seen) == evaluations
    with edit(flow, MutualAttention()), retrace(flow, kept[1]):
        beside = flow([PROMPTS[1], "a dog"], guidance_scale=1.0, **call(STEPS, **more)).images
    assert torch.allclose(beside[0], back[1], rtol=0, atol=1e-5)
    with pytest.raises(CouplingError, match="number of steps or kind"), retrace(flow, kept):
        flow(PROMPTS, **call(2, **more))
    assert not left_behind(flow)


def test_solvers_are_for_flows(pipe):
    with pytest.raises(SchedulerError, match=r"RFSolver is for rectified flow .* not for DDIM"):
        invert(pipe, photos(1), "a cat", method=RFSolver())


def test_a_trajectory_stays_small():
    """50 steps of Stable Diffusion 1.5 with null texts: at most 10 MiB."""
    pipe = tiny_sd(dtype=torch.float32)
    method = NullText(2.0, iterations=1)
    one = invert(pipe, photos(1), "a cat", method=method, num_inference_steps=1)
    assert (one.latents.dtype, one.embeddings.dtype) == (torch.float32, torch.float16)
    numbers = {"latents": (51, 4, 64, 64), "embeddings": (50, 77, 768), "shown": (512, 512, 3)}
    bytes_of = {name: getattr(one, name).element_size() for name in numbers}
    assert sum(math.prod(shape) * bytes_of[name] for name, shape in numbers.items()) < 10 * 2**20


def test_flow_edit_is_the_loop_of_the_paper(flow):
    """Two pictures at once, of which the second has an edit; noise of the seed, as in any run."""
    method, more = FlowEdit(start=0.3, seed=5), EXTRA["sd3"]
    kept = invert(flow, photos(), PROMPTS, method=method, num_inference_steps=4, **more)
    prompts, target = [*PROMPTS, "a green frog and a car"], "a green frog and a car"
    with retrace(flow, kept):
        found = flow(prompts, guidance_scale=1.0, **call(4, **more)).images
    flow.scheduler.set_timesteps(4)
    sigmas, x = flow.scheduler.sigmas.double(), clean(flow, photos())
    generator = torch.Generator().manual_seed(5)
    noises = [torch.randn(x.shape[1:], generator=generator, dtype=x.dtype) for _ in sigmas]
    noisy = (1 - sigmas[2]) * x[0] + sigmas[2] * noises[2]
    assert torch.allclose(kept.latents[0, 2], noisy, rtol=0, atol=1e-6)
    models = (flow_of(flow, prompt) for prompt in (PROMPTS[1], target))
    edited = reference.flow_edited(*models, x[1], sigmas, noises, 1)
    assert torch.allclose(found[:2], x, rtol=0, atol=1e-6)
    assert torch.allclose(found[2], edited, rtol=0, atol=4e-6)
    assert (edited - x[1]).abs().max() > 1e-3
    assert not left_behind(flow)
