import pytest
import torch
from diffusers import EulerDiscreteScheduler

from attncontrol import Where, estimate_bytes, record
from attncontrol.attention.intercept import ControlAttnProcessor
from attncontrol.errors import CouplingError, ModelError, SiteError, WordError
from tests.kit.runs import run as of_pipeline
from tests.kit.sd import LAYER, PROMPT, Reference, run
from tests.kit.zoo_chat import VIDEO
from tests.kit.zoo_unets import cascade


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("images", [1, 2])
def test_maps_equal_an_explicit_softmax(pipe, guidance, images):
    with (
        Reference(pipe, LAYER) as expected,
        record(pipe, ["cat", "turtle"], keep=("step", "head")) as maps,
    ):
        run(pipe, images=images, guidance_scale=guidance)
    probabilities = torch.stack([p[-images:] for p in expected])  # step image head query key
    words = torch.stack([probabilities[..., [2]].sum(-1), probabilities[..., [5, 6]].sum(-1)], -1)
    words = words.unflatten(3, (4, 6)).permute(1, 0, 2, 3, 4, 5)
    recorded = maps.layers[LAYER]
    assert recorded.shape == (images, 1, 3, 4, 4, 6, 2)
    torch.testing.assert_close(recorded[:, 0], words.float(), rtol=0, atol=1e-6)
    assert maps.labels == (("cat", "turtle"),) * images
    assert maps.prompts == (PROMPT,) * images
    assert maps.timesteps == (667.0, 334.0, 1.0)


def test_means_are_formed_on_line(pipe):
    with record(pipe, ["cat"], keep=("step", "head")) as full:
        run(pipe)
    with record(pipe, ["cat"]) as mean:
        run(pipe)
    for name, maps in full.layers.items():
        torch.testing.assert_close(
            mean.layers[name], maps.mean((2, 3), keepdim=True), rtol=0, atol=1e-6
        )
    assert mean.nbytes * 3 * 4 > full.nbytes > mean.nbytes


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_recording_leaves_the_picture_bit_identical(pipe, guidance):
    plain = run(pipe, guidance_scale=guidance)
    with record(pipe, ["cat"]):
        recorded = run(pipe, guidance_scale=guidance)
    assert torch.equal(plain, recorded)
    assert torch.equal(plain, run(pipe, guidance_scale=guidance))


def test_all_tokens_sum_to_one_and_branches_are_told_apart(pipe):
    with record(
        pipe, branches=("cond", "uncond"), steps=[0], where=Where(kind="cross", stride=2)
    ) as maps:
        run(pipe)
    maps_cond, maps_uncond = maps.mean("cond"), maps.mean("uncond")
    assert maps_cond.shape == (1, 4, 6, 32)
    torch.testing.assert_close(maps_cond.sum(-1), torch.ones(1, 4, 6))
    assert maps.labels[0][:7] == ("<|startoftext|>", "a", "cat", "and", "a", "tur", "tle")
    with record(pipe, steps=[0], where=Where(kind="cross", stride=2)) as empty:
        run(pipe, "", guidance_scale=1.0)
    torch.testing.assert_close(empty.mean(), maps_uncond, rtol=0, atol=1e-6)


def test_prompts_of_a_batch_have_their_own_words(pipe):
    prompts = ["a cat and a turtle", "a turtle and a red dog"]
    words = {prompts[0]: ["cat"], prompts[1]: ["dog"]}
    with record(pipe, words) as both:
        run(pipe, prompts, images=2)
    assert both.labels == (("cat",), ("cat",), ("dog",), ("dog",))
    latents = torch.randn(
        4, 4, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    for i, prompt in enumerate([prompts[0], prompts[0], prompts[1], prompts[1]]):
        with record(pipe, words) as one:
            run(pipe, prompt, latents=latents[i : i + 1])
        torch.testing.assert_close(one.mean()[0], both.mean()[i], rtol=0, atol=1e-6)


def test_word_map_is_the_mean_over_layers_on_the_finest_grid(pipe):
    with record(pipe, ["cat", "turtle"]) as maps:
        run(pipe)
    assert maps["turtle"].shape == (1, 8, 12)
    torch.testing.assert_close(maps["turtle"], maps.mean()[..., 1])
    with pytest.raises(WordError, match="'frog' was not recorded; recorded are: cat, turtle"):
        maps["frog"]


@pytest.mark.parametrize("keep", [(), ("step",), ("head",), ("step", "head")])
def test_estimate_equals_the_recording(pipe, keep):
    with record(pipe, ["cat", "turtle"], keep=keep, branches=("cond", "uncond")) as maps:
        run(pipe, images=2)
    assert maps.nbytes == estimate_bytes(
        pipe, words=2, height=64, width=96, steps=3, batch=2, branches=2, keep=keep
    )


@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_estimates_of_videos_count_frames(name):
    pipe = VIDEO[name]()
    with record(pipe, ["cat", "turtle"], keep=("head",)) as maps:
        of_pipeline(name, pipe)
    frames = {"wan": 2, "ltx": 3}[name]
    assert maps.nbytes == estimate_bytes(
        pipe, words=2, height=64, width=96, steps=2, batch=frames, keep=("head",)
    )


def test_a_pipeline_that_does_not_say_how_large_its_cells_are_has_no_estimate():
    with pytest.raises(ModelError, match="how many pixels a cell"):
        estimate_bytes(cascade(), words=2, height=64, width=96, steps=2)


def test_other_schedulers_record_the_same_steps(pipe):
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    with record(pipe, ["cat"], keep=("step",)) as maps:
        run(pipe, steps=4)
    assert len(maps.timesteps) == 4
    assert maps.layers[LAYER].shape[2] == 4


def never(*_):
    raise AssertionError("a step was computed")


def test_errors_leave_the_pipeline_as_it_was(pipe):
    plain = run(pipe)
    processors = pipe.unet.attn_processors
    with pytest.raises(WordError, match="'frog' is not in the prompt"), record(pipe, ["frog"]):
        run(pipe)
    with (
        pytest.raises(
            SiteError, match=r"no attention site matches .*stride=8.*Strides here: \[1, 2, 4\]"
        ),
        record(pipe, where=Where(kind="cross", stride=8)),
    ):
        run(pipe)
    with (
        pytest.raises(CouplingError, match="the denoiser was never called: call this pipeline"),
        record(pipe),
    ):
        pass
    with (
        pytest.raises(
            CouplingError,
            match=r"branch \['uncond'\] does not exist in this call; its branches are \('cond',\)",
        ),
        record(pipe, branches=("uncond",)),
    ):
        run(pipe, guidance_scale=1.0, callback_on_step_end=never)
    with (
        pytest.raises(
            CouplingError, match=r"steps \[3, 7\] do not exist in this run of 3, numbered from 0"
        ),
        record(pipe, steps=[2, 3, 7]),
    ):
        run(pipe)
    with pytest.raises(CouplingError, match="one record"), record(pipe):
        run(pipe)
        run(pipe)
    with pytest.raises(KeyboardInterrupt), record(pipe):
        raise KeyboardInterrupt
    assert pipe.unet.attn_processors == processors
    assert not pipe.unet._forward_pre_hooks
    assert not pipe.unet._forward_hooks
    assert "step" not in vars(pipe.scheduler)
    assert "encode_prompt" not in vars(pipe)
    assert torch.equal(plain, run(pipe))


def test_installed_processors_are_shown_and_keep_their_class(pipe):
    with record(pipe):
        shown = pipe.unet.attn_processors[LAYER + ".processor"]
        assert isinstance(shown, ControlAttnProcessor)
        assert (
            type(shown).__name__ == "ControlAttnProcessor2_0"
            or type(shown).__name__ == "ControlAttnProcessor2_0"
        )
        run(pipe)
