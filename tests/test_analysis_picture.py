"""Attention on noised pictures against explicit passes, and methods scored on them."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LMSDiscreteScheduler,
)

from attncontrol import Where, record
from attncontrol.analysis import aggregate
from attncontrol.analysis.concept_attention import concepts_of_picture
from attncontrol.analysis.evaluation import (
    METHODS,
    WordScore,
    along,
    evaluate,
    joined,
    of_image,
    of_layers,
    propagating,
    scored,
    summarise,
)
from attncontrol.analysis.grounding import Example
from attncontrol.bench.examples import examples
from attncontrol.errors import SchedulerError, SiteError, WordError
from attncontrol.families.known import family_of
from attncontrol.verbs.noise import noise_per_signal, noised
from attncontrol.verbs.picture import noised_call, record_picture, record_pictures
from tests.kit.records import pictures
from tests.kit.sd import LAYER, Reference
from tests.kit.zoo import EXTRA, MORE, ZOO
from tests.kit.zoo_chat import CHAT, EXTRA_CHAT

EVERY = ZOO | MORE | CHAT
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    "cls",
    [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, LMSDiscreteScheduler],
)
def test_noise_is_that_of_the_scheduler(cls):
    scheduler = cls(**BETAS)
    scheduler.set_timesteps(7)
    clean, noise = torch.randn(2, 3, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps[1:]:
        expected = scheduler.add_noise(clean, noise, timestep.repeat(3))
        if hasattr(scheduler, "scale_model_input"):
            scheduler._step_index = None
            expected = scheduler.scale_model_input(expected, timestep)
        found = noised(scheduler, clean, noise, float(timestep))
        torch.testing.assert_close(
            found, expected, rtol=0, atol=2e-4 if cls is DPMSolverMultistepScheduler else 1e-5
        )


def test_noise_of_rectified_flow():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(7)
    clean, noise = torch.randn(2, 3, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        expected = scheduler.scale_noise(clean, timestep.repeat(3), noise)
        torch.testing.assert_close(
            noised(scheduler, clean, noise, float(timestep)), expected, rtol=0, atol=1e-6
        )
    assert (
        noise_per_signal(
            DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
            250.0,
        )
        == 0.25
    )


def test_noise_between_timesteps_and_beyond():
    scheduler = DDIMScheduler(**BETAS)
    low, high = (noise_per_signal(scheduler, t) for t in (500.0, 501.0))
    assert noise_per_signal(scheduler, 500.25) == pytest.approx(0.75 * low + 0.25 * high)
    kept = float(scheduler.alphas_cumprod[500])
    assert low == pytest.approx(((1 - kept) / kept) ** 0.5)
    with pytest.raises(
        SchedulerError,
        match=r"timestep 1200\.0 does not exist; DDIMScheduler knows those of 0 to 1000",
    ):
        noise_per_signal(scheduler, 1200.0)
    with pytest.raises(
        SchedulerError, match="the noise schedule of EDMEulerScheduler is not known"
    ):
        noise_per_signal(EDMEulerScheduler(), 5.0)


@torch.no_grad()
def test_a_picture_against_an_explicit_pass(pipe):
    two, prompts = pictures(), ["a cat", "a red turtle"]
    for timestep in (633.0, 250.5):  # of no schedule
        maps = record_pictures(
            pipe,
            two,
            prompts,
            [["cat"], ["red", "turtle"]],
            timestep=timestep,
            seed=4,
            keep=("head",),
        )
        for i, (picture, prompt) in enumerate(zip(two, prompts, strict=True)):
            pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 127.5 - 1
            clean = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
            noise = torch.randn(
                clean.shape[1:], generator=torch.Generator().manual_seed(4 + i)
            ).double()
            kept = pipe.scheduler.alphas_cumprod.double()
            sigma = ((1 - kept) / kept).sqrt()
            here = int(timestep)
            sigma = sigma[here] + (timestep - here) * (sigma[here + 1] - sigma[here])
            noisy = (clean + sigma * noise) / (1 + sigma**2).sqrt()
            text, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
            with Reference(pipe, LAYER) as expected:
                pipe.unet(noisy, timestep, text)
            for k, positions in enumerate([[[2]], [[2], [3, 4]]][i]):
                word = expected[0][0][..., positions].sum(-1).unflatten(1, (4, 6))
                torch.testing.assert_close(
                    maps.layers[LAYER][i, 0, 0, ..., k], word.float(), rtol=0, atol=1e-6
                )
        assert maps.timesteps == (timestep,)
        assert maps.labels == (("cat",), ("red", "turtle"))


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart"])
def test_pictures_in_every_family(name):
    pipe = ZOO[name]()
    call = {k: v for k, v in EXTRA.get(name, {}).items() if k not in ("height", "width")}
    plain = {"height": 64, "width": 96, "num_inference_steps": 2, "output_type": "latent"} | call
    before = pipe("a cat", generator=torch.Generator().manual_seed(0), **plain).images
    two, call = pictures(), call | {"size": (64, 96)}
    both = record_pictures(pipe, two, ["a cat", "a dog"], timestep=500.0, seed=1, **call)
    alone = record_picture(pipe, two[1], "a dog", timestep=500.0, seed=2, **call)
    denoiser = family_of(pipe).denoiser(pipe)
    assert set(both.layers) == {
        site.name for site in family_of(pipe).sites(denoiser) if site.kind != "self"
    }
    for site, of_layer in both.layers.items():
        torch.testing.assert_close(of_layer[1:], alone.layers[site], rtol=0, atol=1e-6)
        assert of_layer.shape[1:4] == (1, 1, 1)
    other = record_picture(pipe, two[1], "a dog", ["dog"], timestep=123.5, seed=2, **call)
    assert (aggregate.word_maps(alone, ["dog"]) - other.mean()).abs().max() > 1e-5
    again = record_picture(pipe, two[1], "a dog", ["dog"], timestep=500.0, seed=2, **call)
    torch.testing.assert_close(aggregate.word_maps(alone, ["dog"]), again.mean(), rtol=0, atol=1e-6)
    assert torch.equal(
        pipe("a cat", generator=torch.Generator().manual_seed(0), **plain).images, before
    )
    assert "set_timesteps" not in vars(pipe.scheduler)
    assert not denoiser._forward_pre_hooks


@pytest.mark.parametrize("name", EVERY)
def test_the_denoiser_is_told_the_timestep_as_in_a_run(name):
    """In the units and the type that the pipeline uses, for timesteps of its schedule; its encoder
    makes latents of its own."""
    pipe = EVERY[name]()
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    call = {
        k: v for k, v in (EXTRA | EXTRA_CHAT).get(name, {}).items() if k not in ("height", "width")
    }
    seen, names = [], list(inspect.signature(denoiser.forward).parameters)

    def look(_, args, kwargs):
        seen.append(dict(zip(names, args, strict=False)) | kwargs)

    hook = denoiser.register_forward_pre_hook(look, with_kwargs=True)
    pipe(prompt=["a cat"], height=64, width=96, num_inference_steps=3, output_type="latent", **call)
    hook.remove()
    timesteps = list(dict.fromkeys(pipe.scheduler.timesteps.tolist()))
    told = [torch.as_tensor(arguments[family.time]).flatten()[0] for arguments in seen]
    for timestep, expected in zip(timesteps, told[:: len(told) // len(timesteps)], strict=False):
        part = noised_call(
            pipe, pictures(1), ["a cat"], timestep=float(timestep), size=(64, 96), **call
        )
        assert float(torch.as_tensor(part.arguments[family.time]).flatten()[0]) == pytest.approx(
            float(expected), rel=1e-6
        )
        assert part.latents.shape[1:] == seen[0][family.sample][0].shape
        assert part.latents.dtype == torch.float64
    record_picture(pipe, pictures(1)[0], "a cat", ["cat"], timestep=250.5, size=(64, 96), **call)


def test_the_timestep_of_the_schedule_gives_what_a_run_records():
    """The first step of a plain run, whose latents are noise alone, is a picture noised to timestep
    1000 of rectified flow."""
    pipe = ZOO["sd3"]()
    picture = np.zeros((64, 96, 3), np.uint8)
    maps = record_picture(
        pipe, picture, "a cat", ["cat"], timestep=1000.0, seed=3, max_sequence_length=16
    )
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(4, 8, 12, generator=generator)[None].double()
    with record(pipe, ["cat"], steps=[0]) as run:
        pipe(
            "a cat",
            latents=latents,
            height=64,
            width=96,
            num_inference_steps=3,
            max_sequence_length=16,
            output_type="latent",
        )
    assert run.timesteps == (1000.0,)
    torch.testing.assert_close(maps.mean(), run.mean(), rtol=0, atol=1e-6)


def test_directions_of_a_picture(pipe):
    picture = pictures(1)[0]
    cells = record_picture(
        pipe,
        picture,
        "a cat",
        timestep=500.0,
        direction="image->image",
        where=Where(kind="self", stride=2),
    )
    assert {tuple(of.shape) for of in cells.layers.values()} == {(1, 1, 1, 1, 4, 6, 24)}
    for of in cells.layers.values():
        torch.testing.assert_close(of.sum(-1), torch.ones(of.shape[:-1]))
    with pytest.raises(WordError, match="'frog' is not in the prompt"):
        record_picture(pipe, picture, "a cat", ["frog"], timestep=500.0)
    with pytest.raises(SiteError, match="is cross-attention, which has no image->image"):
        record_picture(
            pipe,
            picture,
            "a cat",
            timestep=500.0,
            direction="image->image",
            where=Where(kind="cross"),
        )


def test_records_are_joined_and_parted(pipe):
    two = pictures()
    named = (["a cat", "a red cat"], [["cat"], ["red", "cat"]])
    first, second = (record_pictures(pipe, two, *named, timestep=t) for t in (700.0, 300.0))
    both = joined([first, second])
    assert (both.timesteps, both.steps) == ((700.0, 300.0), (0, 1))
    torch.testing.assert_close(both.mean(), (first.mean() + second.mean()) / 2)
    for i, words in enumerate((("cat",), ("red", "cat"))):
        of = of_image(both, i)
        assert of.labels == (words,)
        torch.testing.assert_close(of.mean()[0], both.mean()[i, ..., : len(words)])


def test_rows_of_an_evaluation_by_hand():
    """Methods that return the mask, its opposite, and nothing."""
    scenes = examples(3)
    truths = iter([torch.from_numpy(np.stack(list(e.masks.values()))).float() for e in scenes])
    current = SimpleNamespace()

    def right(_):
        current.truth = next(truths)
        return current.truth

    methods = {
        "right": right,
        "wrong": lambda _: 1 - current.truth,
        "nothing": lambda _: 0 * current.truth,
    }
    rows = evaluate(ZOO["sd"](), scenes, methods, timesteps=(400.0,), batch=2)
    assert len(rows) == 3 * 6
    assert [row.word for row in rows[:2]] == list(scenes[0].masks)
    assert {row.timestep for row in rows} == {400.0}
    right, wrong, nothing = summarise(rows)
    assert (right.method, right.iou, right.pointing, right.accuracy, right.miou, right.n) == (
        "right",
        1.0,
        1.0,
        1.0,
        1.0,
        6,
    )
    assert right.ap == pytest.approx(1)
    assert (wrong.iou, wrong.pointing, wrong.accuracy, wrong.miou) == (0.0, 0.0, 0.0, 0.0)
    area = np.mean([mask.mean() for scene in scenes for mask in scene.masks.values()])
    assert nothing.iou == pytest.approx(area)  # Otsu takes all of a constant map
    assert nothing.accuracy == pytest.approx(1 - area)  # above its own mean is nothing
    assert {row.picture for row in rows} == {0, 1, 2}


def test_a_method_on_some_layers(pipe):
    maps = record_picture(pipe, pictures(1)[0], "a cat", ["cat"], timestep=500.0)
    other = record_picture(
        pipe, pictures(1)[0], "a cat", ["cat"], timestep=500.0, where=Where(layers=(LAYER,))
    )
    assert torch.equal(of_layers(METHODS["mean"], [LAYER])(maps), METHODS["mean"](other))


def test_methods_see_every_timestep_and_direction():
    looks = {
        "image->text": {"keep": ("head",)},
        "image->image": {"where": Where(kind="self", stride=2)},
    }
    methods = METHODS | {
        "propagated": propagating(METHODS["mean"]),
        "uncut": propagating(METHODS["mean"], 2, cut=None),
    }
    methods |= {"along": along(METHODS["mean"]), "smooth": along(METHODS["mean"], cut=None)}
    scenes = examples(2)
    rows = evaluate(ZOO["sd"](), scenes, methods, timesteps=(600.0, 200.0), looks=looks)
    summaries = summarise(rows)
    assert [(s.method, s.timestep) for s in summaries] == [
        (name, t) for t in (600.0, 200.0, None) for name in methods
    ]
    assert all(s.n == 4 and 0 <= s.miou <= 1 for s in summaries)
    again = evaluate(ZOO["sd"](), scenes, methods, timesteps=(600.0, 200.0), looks=looks, batch=1)
    assert sorted(map(str, again)) == sorted(map(str, rows))
    concepts = concepts_of_picture(
        ZOO["sd3"](), scenes[0].picture, "a picture", list(scenes[0].masks), timestep=600.0
    )
    first, second = scored(concepts.maps[0], scenes[0], method="concepts", timestep=600.0)
    assert (first.word, second.word) == tuple(scenes[0].masks)
    assert first.method == "concepts"
    flat = {"cat": np.ones((8, 8), bool)}
    with pytest.raises(WordError, match="'cat' is not in the prompt"):
        evaluate(ZOO["sd"](), [Example(scenes[0].picture, "a dog", flat)])
    assert isinstance(rows[0], WordScore)
