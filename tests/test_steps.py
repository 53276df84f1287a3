"""Which step, view and branch a call of the denoiser belongs to, where that is not plain: several
views in a step, branches and sites that come and go, diffusers' own perturbed rows, parts of
schedules, and schedules with the same timestep twice."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusion3PAGPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPanoramaPipeline,
)
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from attncontrol.attention.sites import Where
from attncontrol.edits.mutual_attention import MutualAttention
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.errors import CallError, CouplingError
from attncontrol.maps.reading import load
from attncontrol.objectives.descent import Descent
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import steer
from tests.kit.runs import run as run_any
from tests.kit.sd import LAYER, PROMPT, Reference, run
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import sd3

MID = "mid_block.attentions.0.transformer_blocks.0.attn1"
VIEWS = [(0, 8, 0, 8), (0, 8, 4, 12), (0, 8, 2, 10)]
CAT = 2  # the position of "cat" in PROMPT
DESCENT = Descent(step_size=40.0, thresholds={}, guided=1.0)


def less_cat(maps):
    return maps.mean()[..., CAT].flatten(1).mean(1)


def watched(seen):
    """An edit that changes nothing and keeps the moments of one layer."""

    def look(call, now):
        seen.append(now)
        return call

    return look


# Views


@pytest.fixture(params=[DDIMScheduler, PNDMScheduler])
def panorama(request):
    pipe = tiny_sd(cls=StableDiffusionPanoramaPipeline)
    config = dict(pipe.scheduler.config) | {"skip_prk_steps": True}
    pipe.scheduler = request.param.from_config(config)
    pipe.get_views = lambda *_, **__: VIEWS
    return pipe


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_views_count_as_one_mean_of_their_step(panorama, guidance):
    wanted = run(panorama, guidance_scale=guidance)
    moments = []
    with (
        Reference(panorama, LAYER) as calls,
        record(panorama, where=Where(layers=(LAYER,)), keep=("step", "head")) as maps,
        edit(panorama, watched(moments), where=Where(layers=(LAYER,))),
    ):
        assert torch.equal(run(panorama, guidance_scale=guidance), wanted)
    total = len(panorama.scheduler.timesteps)
    assert len(calls) == total * len(VIEWS)
    assert maps.steps == tuple(range(total))
    assert maps.timesteps == tuple(map(float, panorama.scheduler.timesteps))
    places = [(now.step.index, now.step.view) for now in moments]
    assert places == [(step, view) for step in range(total) for view in range(len(VIEWS))]
    cond = torch.stack([call[-1] for call in calls]).unflatten(0, (total, len(VIEWS))).mean(1)
    recorded = maps.layers[LAYER][0, 0].flatten(2, 3)
    torch.testing.assert_close(recorded.double(), cond, rtol=0, atol=1e-6)


class Value:
    """Attention that is the identity, for a module without residual of its own."""

    def __call__(self, attn, hidden_states, *_, **__):
        return attn.to_out[0](attn.to_v(hidden_states))


def panorama_by_hand(pipe, latents, *, alphas=None, weight=0.0, guidance=3.0, steps=3):
    """Views with descent on the attention to the cat, and the weakened prediction, written out."""
    scheduler, unet = pipe.scheduler, pipe.unet
    states = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    cond, uncond = states[0], states[1]
    scheduler.set_timesteps(steps)
    status = [dict(vars(scheduler)) for _ in VIEWS]
    for i, t in enumerate(scheduler.timesteps):
        value, count = torch.zeros_like(latents), torch.zeros_like(latents)
        for j, (top, bottom, left, right) in enumerate(VIEWS):
            z = latents[:, :, top:bottom, left:right]
            vars(scheduler).update(status[j])
            if alphas:
                with torch.enable_grad(), Reference(pipe, LAYER) as maps:
                    leaf = z.clone().requires_grad_()
                    unet(leaf, t, cond)
                    loss = maps[0].mean(1)[..., CAT].mean()
                    (gradient,) = torch.autograd.grad(loss, leaf)
                z = z - alphas[i] * gradient
            both = unet(torch.cat([z, z]), t, torch.cat([uncond, cond])).sample
            prediction = both[:1] + guidance * (both[1:] - both[:1])
            if weight:
                module = unet.get_submodule(MID)
                own, module.processor = module.processor, Value()
                prediction = prediction + weight * (both[1:] - unet(z, t, cond).sample)
                module.processor = own
            value[:, :, top:bottom, left:right] += scheduler.step(prediction, t, z).prev_sample
            count[:, :, top:bottom, left:right] += 1
            status[j] = {k: v[:] if type(v) is list else v for k, v in vars(scheduler).items()}
        latents = value / count
    return latents


@torch.no_grad()
def test_steer_and_perturb_act_on_every_view(panorama):
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(3)).double()
    call = {"latents": latents, "guidance_scale": 3.0}
    plain = run(panorama, **call)
    total = len(panorama.scheduler.timesteps)
    torch.testing.assert_close(plain, panorama_by_hand(panorama, latents), rtol=0, atol=1e-10)
    where = Where(layers=(LAYER,))
    with steer(panorama, less_cat, where=where, descent=DESCENT) as trace:
        steered = run(panorama, **call)
    times = [float(t) for t in panorama.scheduler.timesteps]
    wanted = [(i, times[i]) for i in range(total) for _ in VIEWS]
    assert [(step.index, step.timestep) for step in trace.steps] == wanted
    alphas = [DESCENT.alpha(i, total, 40.0) for i in range(total)]
    by_hand = panorama_by_hand(panorama, latents, alphas=alphas)
    torch.testing.assert_close(steered, by_hand, rtol=0, atol=1e-10)
    assert (steered - plain).abs().max() > 1e-3
    with (
        steer(panorama, less_cat, where=where, descent=DESCENT),
        perturb(panorama, SoftIdentity(), scale=2.0, where=Where(layers=(MID,))),
    ):
        both = run(panorama, **call)
    by_hand = panorama_by_hand(panorama, latents, alphas=alphas, weight=2.0)
    torch.testing.assert_close(both, by_hand, rtol=0, atol=1e-10)
    assert (both - steered).abs().max() > 1e-3


def test_several_views_in_one_batch_are_refused(panorama):
    with pytest.raises(CouplingError, match="batch of 6"), record(panorama, ["cat"]):
        run(panorama, guidance_scale=3.0, view_batch_size=3)


# Branches and sites that come and go


def test_a_branch_that_ends(pipe):
    cutoff = {"callback_on_step_end": SDCFGCutoffCallback(cutoff_step_ratio=0.5)}
    call = {"guidance_scale": 3.0, "steps": 4}
    with record(pipe, branches=("cond", "uncond")) as maps:
        run(pipe, **call, **cutoff)
    for branch in maps.branches:
        assert (maps.mean(branch).sum(-1) - 1).abs().max() < 1e-5
    with record(pipe, branches=("cond", "uncond"), keep=("step",)) as kept:
        run(pipe, **call, **cutoff)
    for name, of_layer in kept.layers.items():
        sums = of_layer[0].sum(-1).flatten(2).mean(-1)  # branch step
        assert (sums[0] - 1).abs().max() < 1e-5, name
        ran = sums[1].isfinite()
        assert ran.tolist() == [True, True, True, False]
        assert (sums[1][ran] - 1).abs().max() < 1e-5
        torch.testing.assert_close(of_layer[:, 1, :3].mean(1), maps.layers[name][:, 1, 0])


def test_guidance_continues_where_a_branch_ends(pipe):
    seen = []
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    with (
        edit(pipe, watched(seen), where=Where(layers=(MID,))),
        perturb(pipe, SoftIdentity(), scale=2.0, where=Where(layers=(MID,))),
        steer(pipe, less_cat, descent=DESCENT) as trace,
    ):
        run(pipe, guidance_scale=3.0, steps=4, callback_on_step_end=cutoff)
    own = [now.branches for now in seen if now.purpose == "own"]
    assert own == [("uncond", "cond")] * 3 + [("cond",)]
    others = {(now.purpose, now.branches) for now in seen if now.purpose != "own"}
    assert ("weakened", ("cond",)) in others
    assert all(branches == ("cond",) for _, branches in others)
    assert [step.index for step in trace.steps] == [0, 1, 2, 3]


def test_sites_that_skip_steps(pipe, tmp_path):
    block = pipe.unet.mid_block
    forward = block.forward
    kept = {}

    def cached(*args, **kwargs):
        kept["count"] = kept.get("count", 0) + 1
        if kept["count"] % 2:
            kept["output"] = forward(*args, **kwargs)
        return kept["output"]

    block.forward = cached
    options = ({}, {"keep": ("step",)}, {"to": tmp_path / "record"})
    records = []
    for option in options:
        kept.clear()
        with record(pipe, **option) as maps:
            run(pipe, steps=4)
        records.append(maps)
    mean, steps, folder = records
    mid = MID.replace("attn1", "attn2")
    for name, of_layer in mean.layers.items():
        assert (of_layer.sum(-1) - 1).abs().max() < 1e-5, name
    for of in (steps, folder, load(tmp_path / "record")):
        assert of.steps == (0, 1, 2, 3)
        for name, of_layer in of.layers.items():
            ran = of_layer.flatten(3).isfinite().all(-1).flatten().tolist()
            assert ran == [True, name != mid, True, name != mid]
        seen = of.layers[mid][:, :, [0, 2]].mean(2)
        torch.testing.assert_close(seen, mean.layers[mid][:, :, 0])


# Perturbed-attention guidance of diffusers


@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("images", [1, 2])
def test_the_conditional_row_of_a_pag_pipeline(guidance, images):
    pipe = tiny_sd(cls=StableDiffusionPAGPipeline, pag_applied_layers=["mid"])
    call = {"guidance_scale": guidance, "pag_scale": 3.0, "images": images}
    wanted, moments = run(pipe, **call), []
    own = ("uncond", "cond", "perturbed") if guidance else ("cond", "perturbed")
    where = Where(layers=(LAYER,))
    with (
        Reference(pipe, LAYER) as calls,
        record(pipe, where=where, keep=("step", "head")) as maps,
        edit(pipe, watched(moments), where=where),
    ):
        assert torch.equal(run(pipe, **call), wanted)
    assert {now.branches for now in moments} == {own}
    rows = moments[0].rows("cond")
    assert rows == slice(own.index("cond") * images, (own.index("cond") + 1) * images)
    cond = torch.stack([each[rows] for each in calls], 1)  # image step head query key
    torch.testing.assert_close(
        maps.layers[LAYER][:, 0].flatten(3, 4).double(), cond, rtol=0, atol=1e-6
    )
    wrong = torch.stack([each[-images:] for each in calls], 1)
    assert (wrong - cond).abs().max() > 1e-4
    assert pipe.unet.get_submodule(LAYER).processor.__class__.__name__ == "AttnProcessor2_0"


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_the_branches_of_a_pag_pipeline_for_sd3(guidance):
    pipe = sd3()
    unused = ("image_encoder", "feature_extractor")
    parts = {name: part for name, part in pipe.components.items() if name not in unused}
    other = StableDiffusion3PAGPipeline(**parts, pag_applied_layers=["blocks.1"])
    other.set_progress_bar_config(disable=True)
    seen, call = [], {"guidance_scale": guidance, "pag_scale": 3.0}
    wanted = run_any("sd3", other, **call)
    where = Where(layers=("transformer_blocks.2",))
    with record(other, ["cat"], where=where), edit(other, watched(seen), where=where):
        assert torch.equal(run_any("sd3", other, **call), wanted)
    own = ("uncond", "cond", "perturbed") if guidance else ("cond", "perturbed")
    assert {now.branches for now in seen} == {own}


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_extra_passes_are_refused_in_a_pag_pipeline(guidance):
    call = {"guidance_scale": guidance, "pag_scale": 3.0}

    def made():
        return tiny_sd(cls=StableDiffusionPAGPipeline, pag_applied_layers=["mid"])

    pipe = made()
    with pytest.raises(CallError, match="pag_scale=0"), steer(pipe, less_cat, descent=DESCENT):
        run(pipe, **call)
    pipe = made()  # diffusers leaves its processors behind where a call fails
    where = Where(kind="self", layers=("mid_block",))
    with (
        pytest.raises(CallError, match="pag_scale=0"),
        perturb(pipe, SoftIdentity(), scale=3.0, where=where),
    ):
        run(pipe, **call)
    pipe = made()
    wanted = run(pipe, **call)
    with perturb(pipe, SoftIdentity(), scale=3.0, where=where):
        got = run(pipe, **call | {"pag_scale": 0.0})
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)


# Parts of schedules


@pytest.mark.parametrize("scheduler", [DDIMScheduler, PNDMScheduler])
@pytest.mark.parametrize("strength", [0.3, 0.6, 0.8, 1.0])
def test_img2img_begins_within_the_schedule(pipe, scheduler, strength):
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    other.scheduler = scheduler.from_config(dict(pipe.scheduler.config) | {"skip_prk_steps": True})
    seen, times = [], []

    def keep(_, args, __):
        times.append(float(args[1]))

    hook = other.unet.register_forward_pre_hook(keep, with_kwargs=True)
    with (
        record(other, ["cat"], keep=("step",)) as maps,
        edit(other, watched(seen), where=Where(layers=(LAYER,))),
    ):
        other(
            PROMPT,
            image=Image.new("RGB", (96, 64), "red"),
            strength=strength,
            num_inference_steps=5,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )
    hook.remove()
    total = len(times)
    assert maps.steps == tuple(range(total))
    assert maps.timesteps == tuple(times)
    assert [now.step.index for now in seen] == list(range(total))
    assert {now.step.total for now in seen} == {total}
    assert seen[0].progress == 0
    assert seen[-1].progress == (1 if total > 1 else 0)
    alphas = other.scheduler.alphas_cumprod.double()
    sigmas = [float(((1 - alphas[int(t)]) / alphas[int(t)]) ** 0.5) for t in times]
    assert maps.sigmas == pytest.approx(sigmas, rel=1e-5)


# Schedules with the same timestep twice


def test_second_order_steps_are_steps_of_their_own(pipe):
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    wanted = run(pipe, guidance_scale=3.0)
    where = Where(layers=(LAYER,))
    with (
        Reference(pipe, LAYER) as calls,
        record(pipe, where=where, keep=("step", "head")) as maps,
    ):
        assert torch.equal(run(pipe, guidance_scale=3.0), wanted)
    total = len(pipe.scheduler.timesteps)
    assert len(calls) == total == 5
    assert maps.steps == tuple(range(total))
    assert maps.timesteps == tuple(map(float, pipe.scheduler.timesteps))
    cond = torch.stack([call[-1] for call in calls])
    recorded = maps.layers[LAYER][0, 0].flatten(2, 3)
    torch.testing.assert_close(recorded.double(), cond, rtol=0, atol=1e-6)
    seen = []
    with (
        steer(pipe, less_cat, where=where, descent=DESCENT) as trace,
        edit(pipe, watched(seen), where=where),
    ):
        run(pipe, guidance_scale=3.0)
    assert [step.index for step in trace.steps] == [0, 1, 2]
    assert [step.timestep for step in trace.steps] == [*maps.timesteps[:1], *maps.timesteps[2::2]]
    own = [now.step for now in seen if now.purpose == "own"]
    places = [(step.index, step.stage, step.evaluation) for step in own]
    assert places == [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3), (2, 0, 4)]
    assert {(step.total, step.evaluations) for step in own} == {(3, 5)}
    assert [step.progress for step in own] == [0, 0, 0.5, 0.5, 1]


def test_second_order_steps_of_flow_matching():
    pipe = sd3()
    pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    seen = []
    wanted = run_any("sd3", pipe, steps=3)
    with record(pipe, ["cat"], keep=("step",)) as maps, edit(pipe, watched(seen), where=Where()):
        assert torch.equal(run_any("sd3", pipe, steps=3), wanted)
    total = len(pipe.scheduler.timesteps)
    assert maps.steps == tuple(range(total))
    assert sorted({(now.step.index, now.step.stage, now.step.view) for now in seen}) == [
        (evaluation // 2, evaluation % 2, 0) for evaluation in range(total)
    ]
    assert {now.step.total for now in seen} == {3}


def test_a_source_in_views(panorama):
    """Views are pictures of their own: every view of the target reads the same view of the
    source. Panorama orders guided batches of several prompts in a way of its own."""
    call = {"guidance_scale": 1.0, "steps": 2}
    prompts = [PROMPT, "a dog"]
    plain = run(panorama, prompts, **call)
    with edit(panorama, MutualAttention(start=0.0)):
        changed = run(panorama, prompts, **call)
    assert torch.equal(changed[0], plain[0])
    assert (changed[1] - plain[1]).abs().max() > 1e-3
