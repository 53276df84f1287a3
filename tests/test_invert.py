"""Pictures that exist become trajectories, and come back: against loops written from the papers."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from attncontrol import Trajectory, edit, invert, record, retrace, steer
from attncontrol.edits import MutualAttention, Replace
from attncontrol.errors import (
    CallError,
    CouplingError,
    ModelError,
    RecordError,
    SchedulerError,
    SettingError,
)
from attncontrol.inversion import DDIMInversion, Exact, PnPInversion
from attncontrol.losses import AttendAndExcite
from tests.kit.photos import SIZE, clean, flow_of, photos, unet_of, with_ddim
from tests.kit.photos import call as call_of
from tests.kit.state import changes, left_behind, state
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import EXTRA, ZOO
from tests.kit.zoo_chat import lumina_next
from tests.reference import inversion as reference

PROMPTS = ["a red cat", "a blue frog and a car"]
STEPS = 4


@pytest.fixture(scope="module")
def pipe():
    return with_ddim()


@pytest.fixture(scope="module")
def trajectory(pipe):
    return invert(pipe, photos(), PROMPTS, num_inference_steps=STEPS)


def call(steps=STEPS, **more):
    return call_of(steps, **more)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_ddim_inversion_is_that_of_the_paper(kind):
    """Two pictures at once, one by one by hand."""
    pipe = with_ddim(prediction_type=kind)
    method = DDIMInversion()
    path = invert(pipe, photos(), PROMPTS, method=method, num_inference_steps=STEPS).latents
    pipe.scheduler.set_timesteps(STEPS)
    of_run = pipe.scheduler.alphas_cumprod, pipe.scheduler.timesteps
    final = pipe.scheduler.final_alpha_cumprod
    start = clean(pipe, photos())
    for picture in range(2):
        model = unet_of(pipe, PROMPTS[picture])
        found = reference.ddim_inverted(model, start[picture], *of_run, final, kind)
        assert torch.allclose(path[picture], torch.stack(found), rtol=0, atol=1e-6)
    assert path.shape == (2, STEPS + 1, 4, 8, 12)


def test_the_scheduler_of_sigmas_goes_the_same_way():
    """z of EulerDiscrete is z of DDIM divided by sqrt(a); a after its last step is 1."""
    pipe = tiny_sd()
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    path = invert(pipe, photos(), PROMPTS, num_inference_steps=STEPS).latents
    pipe.scheduler.set_timesteps(STEPS)
    alphas = 1 / (1 + pipe.scheduler.sigmas.double() ** 2)
    of_times = dict(zip(pipe.scheduler.timesteps, alphas, strict=False))
    start = clean(pipe, photos())
    found = reference.ddim_inverted(
        unet_of(pipe, PROMPTS[1]), start[1], of_times, list(of_times), alphas[-1]
    )
    of_ddim = path[1] * alphas.sqrt()[:, None, None, None]
    assert torch.allclose(of_ddim, torch.stack(found), rtol=0, atol=1e-6)


def test_flows_go_the_same_way():
    pipe = ZOO["sd3"]()
    more = EXTRA["sd3"]
    path = invert(pipe, photos(), PROMPTS, num_inference_steps=3, **more).latents
    pipe.scheduler.set_timesteps(3)
    model, start = flow_of(pipe, PROMPTS[1]), clean(pipe, photos())
    found = reference.flow_inverted(model, start[1], pipe.scheduler.sigmas.double())
    assert torch.allclose(path[1], torch.stack(found), rtol=0, atol=1e-6)


def test_exact_is_direct_inversion(pipe, trajectory):
    """Without guidance the model sees z + d and comes back by its own predictions; the oracle never
    puts z on the path."""
    seen = []
    with retrace(pipe, trajectory):
        hook = pipe.unet.register_forward_pre_hook(
            lambda _, __, named: seen.append(named["sample"].clone()), with_kwargs=True
        )
        pictures = pipe(PROMPTS, guidance_scale=1.0, **call()).images
    hook.remove()
    alphas, times = pipe.scheduler.alphas_cumprod, pipe.scheduler.timesteps
    level = reference.levels(alphas, times, pipe.scheduler.final_alpha_cumprod)
    model, path = unet_of(pipe, PROMPTS[1]), list(trajectory.latents[1])
    back = reference.directly_retraced(
        lambda z, i: model(z, times[i]), path,
        lambda i, z, m: reference.ddim_step(z, m, level[i], level[i + 1]),
    )  # fmt: skip
    assert torch.allclose(torch.stack(back), trajectory.latents[1], rtol=0, atol=1e-6)
    assert torch.equal(pictures, trajectory.latents[:, -1])
    for step in range(STEPS):
        shown = back[step] + reference.residuals(path)[step]
        assert torch.allclose(seen[step][1], shown, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [Exact(), PnPInversion()])
def test_any_guidance_and_prompt_bring_the_picture_back(pipe, method):
    """Row 0; the others are those of a plain run from the same noise."""
    kept = invert(pipe, photos(1), "a red cat", method=method, num_inference_steps=STEPS)
    prompts = ["another thing", "a blue cat", "a dog"]
    with retrace(pipe, kept):
        found = pipe(prompts, guidance_scale=7.5, **call()).images
    assert torch.equal(found[0], kept.latents[0, -1])
    noise = kept.latents[:, 0].expand(3, -1, -1, -1)
    plain = pipe(prompts, guidance_scale=7.5, latents=noise, **call()).images
    assert torch.allclose(found[1:], plain[1:], rtol=0, atol=1e-9)


def test_a_picture_without_a_prompt(pipe):
    """Of which nothing is said, as for features of a photo."""
    kept = invert(pipe, photos(1), "", num_inference_steps=STEPS)
    listed = invert(pipe, photos(1), [""], num_inference_steps=STEPS)
    assert kept.prompts == ("",)
    assert torch.equal(kept.latents, listed.latents)
    with pytest.raises(SettingError, match="a prompt, or one for every picture"):
        invert(pipe, photos(1), [])


def test_ddim_inversion_takes_the_noise_alone(pipe):
    kept = invert(pipe, photos(1), "a red cat", method=DDIMInversion(), num_inference_steps=STEPS)
    with retrace(pipe, kept):
        found = pipe(["a red cat"], **call()).images
    plain = pipe(["a red cat"], latents=kept.latents[:, 0], **call()).images
    assert torch.allclose(found, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "pixart"])
def test_every_family_brings_the_picture_back(name):
    pipe = ZOO[name]()
    if name == "pixart":
        pipe.scheduler = DDIMScheduler(clip_sample=False)
    more = EXTRA.get(name, {})
    kept = invert(pipe, photos(1), "a red cat", size=SIZE, num_inference_steps=2, **more)
    with retrace(pipe, kept):
        found = pipe(["a red cat", "a frog"], **call(2, **more)).images
    assert torch.equal(found[0], kept.latents[0, -1])
    assert not torch.equal(found[1], found[0])
    assert torch.isfinite(kept.latents).all()


def test_several_pictures_and_their_edits(pipe, trajectory):
    def begun(prompts, opened=(), **more):
        seen = []
        hook = pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        inner = edit(pipe, opened) if opened else record(pipe, [1])
        with retrace(pipe, trajectory, **more), inner:
            pipe(prompts, guidance_scale=1.0, **call(STEPS))
        hook.remove()
        starts = trajectory.latents[:, 0]
        return [int((starts - row).flatten(1).norm(dim=1).argmin()) for row in seen[0]]

    plain = invert(pipe, photos(), PROMPTS, method=DDIMInversion(), num_inference_steps=STEPS)
    trajectory = plain
    a, b = PROMPTS
    assert begun([a, b, "c", "d"]) == [0, 1, 1, 1]
    assert begun([a, "c", b, "d"], images=[0, 2]) == [0, 0, 1, 1]
    assert begun(["c", b, "d", a], images=[3, 1]) == [1, 1, 1, 0]
    assert begun([a, b, a, b], Replace(source=(0, 1, 0, 1))) == [0, 1, 0, 1]
    assert trajectory[1].prompts == (b,)
    assert torch.equal(trajectory[1].latents[0], trajectory.latents[1])


def test_all_verbs_in_any_order_beside_it(pipe, trajectory):
    one = trajectory[0]
    verbs = {
        "retrace": lambda: retrace(pipe, one),
        "edit": lambda: edit(pipe, MutualAttention()),
        "steer": lambda: steer(pipe, AttendAndExcite(["cat"]), images=(1,)),
        "record": lambda: record(pipe, ["cat"]),
    }
    found = []
    for order in (list(verbs), list(verbs)[::-1], ["edit", "record", "retrace", "steer"]):
        opened = [verbs[name]() for name in order]
        entered = [each.__enter__() for each in opened]
        found.append(pipe(["a red cat", "a blue cat"], **call()).images)
        for each in opened:  # the first is closed first
            each.__exit__(None, None, None)
        maps = entered[order.index("record")]
        found[-1] = found[-1], maps["cat"]
    for pictures, maps in found:
        assert torch.equal(pictures[0], one.latents[0, -1])
        assert torch.equal(pictures, found[0][0])
        assert torch.equal(maps, found[0][1])
    assert not left_behind(pipe)


def test_the_pipeline_is_as_before(pipe):
    def plain():
        return pipe("a cat", generator=torch.Generator().manual_seed(0), **call()).images

    expected, before = plain(), state(pipe)
    kept = invert(pipe, photos(1), "a red cat", num_inference_steps=2)
    assert not changes(before, state(pipe))
    with pytest.raises(SettingError, match="a loss"), retrace(pipe, kept):
        pipe("a cat", callback_on_step_end=fail, **call(2))
    with record(pipe, ["cat"]) as maps:
        with pytest.raises(SettingError, match="a loss"):
            invert(pipe, photos(1), "a cat", num_inference_steps=2, callback_on_step_end=fail)
        invert(pipe, photos(1), "a frog", num_inference_steps=2)  # is not seen
        assert torch.equal(plain(), expected)
    assert maps.prompts == ("a cat",)
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)
    assert torch.equal(plain(), expected)


def fail(*_):
    raise SettingError("a loss of power")


def test_a_file_holds_all(trajectory, tmp_path):
    file = trajectory.save(tmp_path / "way.safetensors")
    again = Trajectory.load(file)
    assert torch.equal(again.latents, trajectory.latents)
    assert again.course == trajectory.course
    assert again.method == Exact()
    assert np.array_equal(np.asarray(again.pictures[1]), photos()[1])
    assert repr(again) == "Trajectory(2 pictures of 64 x 96, 4 steps, Exact(), 0.1 MiB)"
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(RecordError, match="damaged is damaged: the checksums of its tensors"):
        Trajectory.load(tmp_path / "damaged")
    with pytest.raises(RecordError, match="nowhere is not a trajectory: there is no such file"):
        Trajectory.load(tmp_path / "nowhere")


REFUSED = {
    "prompts": ({"prompt": ["a", "b"]}, SettingError, "1 pictures have 2 prompts; give one"),
    "size": ({"size": (60, 96)}, SettingError, r"size=\(60, 96\) is .* multiples of 16"),
    "latents": ({"latents": None}, CallError, "latents=... is not given to invert"),
    "eta": ({"eta": 0.5}, SchedulerError, "eta=0.5 draws noise in every step; leave it out"),
    "method": ({"method": "exact"}, SettingError, "method must be Inversion, not 'exact'"),
    "guidance": ({"guidance_scale": -1}, SettingError, "guidance_scale must be a number of at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_inverted(pipe, case):
    given, error, message = REFUSED[case]
    before = state(pipe)
    with pytest.raises(error, match=message):
        invert(pipe, photos(1), **{"prompt": "a cat", "num_inference_steps": 2} | given)
    assert not changes(before, state(pipe))


def test_models_and_schedulers_that_cannot():
    with pytest.raises(SchedulerError, match="DPMSolverMultistepScheduler cannot be inverted"):
        invert(ZOO["pixart"](), photos(1), "a cat")
    pipe = tiny_sd()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=True)
    with pytest.raises(SchedulerError, match="DDIMScheduler clips what is predicted"):
        invert(pipe, photos(1), "a cat")
    with pytest.raises(ModelError, match="cannot be given to LuminaPipeline: what its"):
        invert(lumina_next(), photos(1), "a cat")


def test_runs_that_cannot_retrace(pipe, trajectory):
    one, other = trajectory[0], DDIMScheduler(clip_sample=False, steps_offset=1)
    for more, prompts, message in [
        ({"height": 96}, ["a"], "pictures of 64 x 96 pixels, this run makes others: .* height=64"),
        ({"num_inference_steps": 3}, ["a"], "the trajectory was made with 4 steps, this run has 3"),
    ]:
        with pytest.raises(CouplingError, match=message), retrace(pipe, one):
            pipe(prompts, **call() | more)
    for more, message in [
        ({}, "image 1 retraces a picture, but the pipeline makes 1"),
        ({"images": [0]}, r"images=\[0\], but the trajectory is of 2 pictures"),
    ]:
        with (
            pytest.raises(CouplingError, match=message),
            retrace(pipe, trajectory, **more),
        ):
            pipe("a", **call())
    message = r"made with StableDiffusionPipeline .* invert with"
    with pytest.raises(CouplingError, match=message), retrace(ZOO["sd3"](), one):
        pass
    with pytest.raises(CouplingError, match="denoiser was never called"), retrace(pipe, one):
        pass
    kept, pipe.scheduler = pipe.scheduler, other
    try:
        with pytest.raises(CouplingError, match="with another noise schedule"), retrace(pipe, one):
            pipe("a", **call())
    finally:
        pipe.scheduler = kept
    assert not left_behind(pipe)
