import inspect

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)

from attncontrol import Descent, Relative, Where, record, steer
from attncontrol.errors import (
    CouplingError,
    ModelError,
    NonFiniteError,
    SchedulerError,
    SettingError,
    SiteError,
    WordError,
)
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite, BoxDiff
from attncontrol.losses.attend_and_excite import attend_and_excite
from attncontrol.objectives.descent import early
from tests.kit.tiny import tiny_sd, tiny_unet
from tests.reference import losses as slow
from tests.reference.attend_and_excite import attend_and_excite as reference

PROMPTS = ["a cat and a turtle", "a red dog with a frog"]
WORDS = {PROMPTS[0]: ["cat", "turtle"], PROMPTS[1]: ["dog", "frog"]}
POSITIONS = [[2, 5, 6], [3, 6]]
WHERE = Where(kind="cross", stride=2)
OBJECTIVE = AttendAndExcite(WORDS)


def noise(count=2, height=8, width=12, seed=0):
    return torch.randn(
        count, 4, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def run(pipe, prompts=None, *, latents=None, steps=6, seen=None, **kwargs):
    prompts = PROMPTS if prompts is None else prompts
    latents = noise(1 if isinstance(prompts, str) else len(prompts)) if latents is None else latents

    def keep(_pipe, _i, _t, values):
        if seen is not None:
            seen.append(values["latents"].clone())
        return {}

    return pipe(
        prompts, latents=latents, height=latents.shape[2] * 8, width=latents.shape[3] * 8,
        num_inference_steps=steps, output_type="latent", callback_on_step_end=keep, **kwargs,
    ).images  # fmt: skip


SCHEDULERS = [
    DDIMScheduler,
    PNDMScheduler,
    EulerDiscreteScheduler,
    DPMSolverMultistepScheduler,
    LMSDiscreteScheduler,
]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_equals_the_slow_restatement_at_every_step(pipe, scheduler, guidance):
    options = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **options)
    descent = Descent(step_size=40.0, thresholds={0.0: 0.05, 0.34: 0.5}, max_refinements=3)
    seen = []
    with steer(pipe, OBJECTIVE, where=WHERE, descent=descent) as trace:
        run(
            pipe,
            seen=seen,
            guidance_scale=guidance,
            negative_prompt=["blue", "green"] if guidance > 1 else None,
        )
    total = len(seen)
    expected = reference(
        pipe, PROMPTS, POSITIONS, noise(), num_inference_steps=6, guidance_scale=guidance,
        negative_prompts=["blue", "green"] if guidance > 1 else None, grid=(4, 6),
        scale_factor=40.0, max_iter_to_alter=total // 2,
        thresholds={0: 0.05, int(0.34 * total): 0.5}, max_refinement_steps=3,
    )  # fmt: skip
    assert len(seen) == len(expected)
    plain = []
    run(
        pipe,
        seen=plain,
        guidance_scale=guidance,
        negative_prompt=["blue", "green"] if guidance > 1 else None,
    )
    for ours, theirs, untouched in zip(seen, expected, plain, strict=True):
        assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
        assert (ours - untouched).abs().max() > 1e-3
    assert any(sum(step.refinements) for step in trace.steps)
    assert [step.index for step in trace.steps] == list(range(total // 2))


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
def test_relative_steps_equal_the_slow_restatement(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    thresholds = {0.0: 0.05, 0.34: 0.5}
    descent = Descent(step_size=Relative(0.06), thresholds=thresholds, max_refinements=3)
    seen = []
    with steer(pipe, OBJECTIVE, where=WHERE, descent=descent) as trace:
        run(pipe, seen=seen, guidance_scale=5.0, negative_prompt=["blue", "green"])
    expected = reference(
        pipe, PROMPTS, POSITIONS, noise(), num_inference_steps=6, guidance_scale=5.0,
        negative_prompts=["blue", "green"], grid=(4, 6), scale_factor=0.06, relative=True,
        max_iter_to_alter=3, thresholds={0: 0.05, 2: 0.5}, max_refinement_steps=3,
    )  # fmt: skip
    for ours, theirs in zip(seen, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
    assert any(sum(step.refinements) for step in trace.steps)
    assert "steps of size 6 %" in repr(trace)


def test_words_compete_with_words_alone_in_stable_diffusion_2():
    """Which pads with "!", another token than the end of the text; Stable Diffusion 1 does not."""
    pipe, prompts = tiny_sd(), [PROMPTS[0], "a big red dog and a green frog"]
    assert family_of(pipe).name == "unet"
    pipe.tokenizer.pad_token = "!"
    assert family_of(pipe).name == "sd2"
    descent, seen = Descent(step_size=40.0, thresholds={0.0: 0.5}, max_refinements=3), []
    words = {prompts[0]: ["cat", "turtle"], prompts[1]: ["dog", "frog"]}
    with steer(pipe, AttendAndExcite(words), where=WHERE, descent=descent):
        run(pipe, prompts, seen=seen, guidance_scale=5.0)
    settings = {"num_inference_steps": 6, "guidance_scale": 5.0, "grid": (4, 6)}
    settings |= {"scale_factor": 40.0, "max_iter_to_alter": 3, "max_refinement_steps": 3}
    theirs, others = [
        reference(
            pipe, prompts, [[2, 5, 6], [4, 8]], noise(), thresholds={0: 0.5}, normalize_eot=of_sd2,
            **settings,
        )
        for of_sd2 in (True, False)
    ]  # fmt: skip
    for ours, his, other in zip(seen, theirs, others, strict=True):
        assert (ours - his).abs().max() < 1e-6 * his.abs().max()
        assert (ours - other).abs().max() > 1e-3


def test_boxes_compete_with_words_alone_in_stable_diffusion_2():
    pipe = tiny_sd()
    pipe.tokenizer.pad_token = "!"
    boxes = {"dog": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.0, 1.0, 1.0)}
    with record(pipe, where=WHERE, keep=("step",)) as maps:
        still = Descent(step_size=0.0, thresholds={})
        with steer(pipe, BoxDiff(boxes), where=WHERE, descent=still) as trace:
            run(pipe, PROMPTS[1])
    first = torch.stack([of[0, 0, 0].mean(0) for of in maps.layers.values()]).mean(0)
    text = len(pipe.tokenizer(PROMPTS[1]).input_ids)  # the first and the last do not compete
    expected = slow.boxdiff(first[..., :text], [[3], [6]], [*boxes.values()])
    assert trace.steps[0].losses[0] == pytest.approx(expected.item(), rel=1e-6)  # of float32


def test_the_loss_by_hand():
    # one image, 2 x 2, tokens: start, cat, frog, pad, last; the pad competes in the softmax, start
    # and last do not
    maps = torch.zeros(1, 2, 2, 5, dtype=torch.float64)
    maps[0, 0, 0, 1], maps[0, 1, 1, 2] = 0.05, 0.02
    cat = torch.tensor(5.0).exp() / (torch.tensor(5.0).exp() + 2)
    frog = torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 2)
    loss = attend_and_excite(maps, [[1, 2]], [[slice(1, -1)]], smoothing=False)
    torch.testing.assert_close(
        loss, (1 - torch.minimum(cat, frog)).double().reshape(1), rtol=0, atol=1e-6
    )
    alone = attend_and_excite(maps, [[1]], [[slice(1, -1)]], smoothing=False)
    torch.testing.assert_close(alone, (1 - cat).double().reshape(1), rtol=0, atol=1e-6)


def test_smoothing_has_the_official_taps():
    maps = torch.zeros(1, 5, 5, 4, dtype=torch.float64)
    maps[0, 2, 2, 1] = 10.0  # saturates: probability 1 there, 1/2 elsewhere
    loss = attend_and_excite(maps, [[1]], [[slice(1, -1)]])
    assert loss.item() == pytest.approx(1 - (0.5 + 0.5 * 0.576117**2), abs=1e-5)


def test_each_image_descends_on_its_own_loss(pipe):
    with steer(pipe, OBJECTIVE, where=WHERE) as trace:
        both = run(pipe)
    refinements = [step.refinements for step in trace.steps]
    for i, prompt in enumerate(PROMPTS):
        with steer(pipe, OBJECTIVE, where=WHERE) as one:
            alone = run(pipe, prompt, latents=noise()[i : i + 1])
        torch.testing.assert_close(both[i], alone[0], rtol=0, atol=1e-7)
        assert [step.refinements[0] for step in one.steps] == [counts[i] for counts in refinements]


def test_chosen_images_alone_are_steered(pipe):
    plain = run(pipe)
    with steer(pipe, OBJECTIVE, where=WHERE):
        both = run(pipe)
    with steer(pipe, OBJECTIVE, where=WHERE, images=(1,)) as trace:
        second = run(pipe)
    assert torch.equal(second[0], plain[0])
    torch.testing.assert_close(second[1], both[1], rtol=0, atol=1e-7)
    assert {(step.losses[0], step.refinements[0]) for step in trace.steps} == {(0.0, 0)}
    missing = "makes \\[0, 1\\]: there is no image 2 to steer"
    with pytest.raises(CouplingError, match=missing), steer(pipe, OBJECTIVE, images=(2,)):
        run(pipe)


def test_images_per_prompt_share_the_words(pipe):
    latents = noise(4)
    with steer(pipe, OBJECTIVE, where=WHERE):
        four = run(pipe, latents=latents, num_images_per_prompt=2)
    with steer(pipe, OBJECTIVE, where=WHERE):
        third = run(pipe, PROMPTS[1], latents=latents[2:3])
    torch.testing.assert_close(four[2], third[0], rtol=0, atol=1e-7)


def test_the_gradient_pass_stops_after_the_last_site_and_spares_the_rest(pipe):
    calls = {"conv_out": 0, "mid": 0, "up": 0}

    def count(key):
        return lambda *_: calls.__setitem__(key, calls[key] + 1)

    pipe.unet.conv_out.register_forward_hook(count("conv_out"))
    pipe.unet.mid_block.register_forward_hook(count("mid"))
    pipe.unet.up_blocks[2].register_forward_hook(count("up"))
    with steer(
        pipe,
        OBJECTIVE,
        where=Where(layers=("down_blocks.1.attentions.0.transformer_blocks.0.attn2",)),
    ) as trace:
        run(pipe)
    passes = len(trace.steps) + sum(max(step.refinements) for step in trace.steps)
    assert passes > 3
    assert calls == {"conv_out": 6, "mid": 6, "up": 6}


def test_no_gradient_pass_after_the_last_guided_step(pipe):
    with steer(pipe, OBJECTIVE, where=WHERE, descent=Descent(guided=0.34, thresholds={})) as trace:
        run(pipe)
    assert [step.index for step in trace.steps] == [0, 1]


def test_everything_is_undone(pipe):
    before = run(pipe)
    trainable = [p.requires_grad for p in pipe.unet.parameters()]
    processors = pipe.unet.attn_processors
    with steer(pipe, OBJECTIVE, where=WHERE):
        assert not torch.equal(before, run(pipe))
    with (
        pytest.raises(ZeroDivisionError),
        steer(pipe, lambda maps: maps.mean().sum() / 0 * (1 / 0), where=WHERE),
    ):
        run(pipe)
    assert pipe.unet.attn_processors == processors
    assert [p.requires_grad for p in pipe.unet.parameters()] == trainable
    assert not pipe.unet._forward_pre_hooks
    assert "step" not in vars(pipe.scheduler)
    assert torch.equal(before, run(pipe))


@pytest.mark.parametrize(("total", "refined"), [(50, 10), (25, 5), (10, 2)])
def test_early_thresholds_refine_in_every_step_of_the_first_fifth(total, refined):
    descent = Descent(thresholds=early(0.8))
    targets = [descent.target(index, total) for index in range(total)]
    assert targets == [pytest.approx(0.2)] * refined + [None] * (total - refined)


def test_relative_steps_of_a_loss_do_not_depend_on_its_scale_and_stop_without_gradient(pipe):
    def loss(factor):
        return lambda maps: factor * maps.mean()[..., 2].flatten(1).mean(1)

    descent = Descent(step_size=Relative(0.1), thresholds={}, guided=1.0)
    pictures = {}
    for factor in (0.0, 1.0, 1e-6, -1.0):
        with steer(pipe, loss(factor), where=WHERE, descent=descent):
            pictures[factor] = run(pipe)
    assert torch.equal(pictures[0.0], run(pipe))
    assert torch.allclose(pictures[1.0], pictures[1e-6], rtol=0, atol=1e-9)
    assert (pictures[1.0] - pictures[-1.0]).abs().mean() > 0.1


def test_step_size_zero_changes_nothing(pipe):
    before = run(pipe)
    with steer(pipe, OBJECTIVE, where=WHERE, descent=Descent(step_size=0.0)):
        torch.testing.assert_close(run(pipe), before, rtol=0, atol=1e-12)


def test_any_callable_is_an_objective_and_record_composes(pipe):
    def darker_first_token(maps):
        return maps.mean()[..., 0].mean((1, 2))

    descent = Descent(step_size=300.0, thresholds={}, guided=1.0)
    with record(pipe, where=WHERE) as plain:
        run(pipe)
    with (
        record(pipe, where=WHERE) as outer,
        steer(pipe, darker_first_token, where=WHERE, descent=descent),
        record(pipe, where=WHERE) as inner,
    ):
        run(pipe)
    assert outer.mean()[..., 0].mean() < plain.mean()[..., 0].mean() - 0.01
    torch.testing.assert_close(outer.mean(), inner.mean(), rtol=0, atol=0)


def test_stochastic_schedulers_keep_their_generator(pipe):
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    signature = inspect.signature(pipe.scheduler.step)
    before = run(pipe, generator=torch.Generator().manual_seed(1))
    with steer(pipe, OBJECTIVE, where=WHERE, descent=Descent(step_size=0.0)):
        assert inspect.signature(pipe.scheduler.step) == signature
        same = run(pipe, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(same, before, rtol=0, atol=1e-12)


class LooksBack(DDIMScheduler):
    """Keeps latents, nobody knows what for."""

    last_sample = None


class StepsTwice(DDIMScheduler):
    order = 2


@pytest.mark.parametrize(
    ("scheduler", "why"),
    [(LooksBack, "keeps earlier latents"), (StepsTwice, "takes several evaluations per step")],
)
def test_schedulers_that_would_lose_the_change_are_refused(pipe, scheduler, why):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    with (
        pytest.raises(SchedulerError, match=f"{scheduler.__name__} {why} in a way that is not"),
        steer(pipe, OBJECTIVE),
    ):
        pass


def test_img2img(pipe):
    i2i = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    i2i.set_progress_bar_config(disable=True)
    picture = torch.rand(
        1, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def go():
        return i2i(
            PROMPTS[0],
            image=picture,
            strength=0.5,
            num_inference_steps=8,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images

    plain = go()
    with steer(i2i, OBJECTIVE, where=WHERE) as trace, record(i2i, ["cat"]) as maps:
        steered = go()
    assert [step.index for step in trace.steps] == [0, 1]  # half of the 4 steps that run
    assert len(maps.timesteps) == 4
    assert (plain - steered).abs().max() > 1e-3
    assert torch.equal(plain, go())


def test_inpainting_unets_with_extra_channels(pipe):
    parts = pipe.components | {"unet": tiny_unet(in_channels=9).double().eval()}
    inpaint = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    inpaint.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    call = {
        "image": picture,
        "mask_image": torch.ones(1, 1, 64, 64, dtype=torch.float64),
        "height": 64,
        "width": 64,
    }

    def go():
        return inpaint(
            PROMPTS[0],
            num_inference_steps=3,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
            **call,
        ).images

    plain = go()
    with steer(inpaint, OBJECTIVE, where=WHERE):
        assert (plain - go()).abs().max() > 1e-3
    assert torch.equal(plain, go())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_follow_the_float32_direction(dtype):
    changes = []
    for kind in (torch.float32, dtype):
        pipe = tiny_sd(dtype=kind)
        latents = noise().to(kind)
        seen = {}
        for name in ("plain", "steered"):
            with steer(
                pipe,
                OBJECTIVE,
                where=WHERE,
                descent=Descent(step_size=20.0 if name == "steered" else 0.0, thresholds={}),
            ) as trace:
                seen[name] = run(pipe, latents=latents, steps=2).float()
        assert all(
            isinstance(loss, float) and 0 < loss < 1 for step in trace.steps for loss in step.losses
        )
        changes.append((seen["steered"] - seen["plain"]).flatten())
    assert torch.cosine_similarity(*changes, dim=0) > 0.9


def test_not_finite_latents_are_reported(pipe):
    latents = noise()
    latents[1, 0, 0, 0] = float("nan")
    with (
        pytest.raises(
            NonFiniteError,
            match=r"not finite at step 0 for image\(s\) \[1\]; "
            "the latents were already NaN or infinite",
        ),
        steer(pipe, OBJECTIVE, where=WHERE),
    ):
        run(pipe, latents=latents)


def test_clear_errors(pipe):
    with (
        pytest.raises(WordError, match="'lion' is not in the prompt"),
        steer(pipe, AttendAndExcite(["lion"])),
    ):
        run(pipe)
    with (
        pytest.raises(SiteError, match="no attention site matches"),
        steer(pipe, OBJECTIVE, where=Where(stride=16)),
    ):
        run(pipe)
    with (
        pytest.raises(CouplingError, match="the denoiser was never called"),
        steer(pipe, OBJECTIVE),
    ):
        pass
    with (
        pytest.raises(
            ModelError,
            match="belongs to no known family; known: allegro, anima, anyflow, auraflow, bria",
        ),
        steer(object(), OBJECTIVE),
    ):
        pass
    embeds, _ = pipe.encode_prompt(PROMPTS[0], "cpu", 1, False)  # before, which nobody heard
    with pytest.raises(WordError, match="call the pipeline with prompt="), steer(pipe, OBJECTIVE):
        pipe(prompt_embeds=embeds, guidance_scale=1.0, num_inference_steps=2, height=64, width=64)
    with pytest.raises(SettingError, match=r"Descent\.guided must be a share between 0 and 1"):
        Descent(guided=25.0)
    with pytest.raises(SettingError, match=r"Descent\.step_size must be a number of at least 0"):
        Descent(step_size=-1.0)
    descent = Descent(step_size=Relative(0.06), final=1.0)
    alphas = [descent.alpha(3, total, Relative(0.06)) for total in (4, 25, 50, 100)]
    assert alphas == pytest.approx([0.06, 0.06, 0.03, 0.015])  # as far in all
    assert descent.alpha(3, 100, 20.0) == 20.0
    with pytest.raises(SettingError, match=r"Relative\.share must be a number of at least 0"):
        Relative(-0.1)


def test_nouns_are_the_default_words(pipe):
    with steer(pipe, AttendAndExcite(), where=WHERE) as trace:
        run(pipe)
    assert [[subject.noun.text for subject in of] for of in trace.subjects] == [
        ["cat", "turtle"],
        ["dog", "frog"],
    ]
