"""What edits take of a picture, kept while it is inverted: as in the run that retraces it."""

import functools

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from attncontrol import edit, invert, keep, record, retrace
from attncontrol.edits import LocalBlend, MutualAttention, PlugAndPlay, Replace, Within
from attncontrol.errors import CouplingError, SizeError
from attncontrol.inversion import (
    DDIMInversion,
    FixedPoint,
    FlowEdit,
    NegativePrompt,
    NullText,
    PnPInversion,
)
from attncontrol.maps.kept import kept
from attncontrol.verbs.places import On
from tests.kit.photos import photos, unet_of, with_ddim
from tests.kit.state import changes, left_behind, state
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import EXTRA, ZOO
from tests.reference import inversion as reference

PROMPTS = ["a red cat and a frog", "a dog and a car"]
CHANGED = ["a blue cat and a frog", "a dog and a turtle"]
STEPS, SIZE = 3, (32, 48)


def with_euler():
    pipe = tiny_sd()
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    return pipe


MAKE = {"sd": with_ddim, "euler": with_euler, "sd3": ZOO["sd3"], "flux": ZOO["flux"]}
pipe_of = functools.cache(lambda name: MAKE[name]())


def made(name, prompts, guidance=1.0, **more):
    given = {"num_inference_steps": STEPS, "output_type": "pt", "guidance_scale": guidance}
    given |= {"height": SIZE[0], "width": SIZE[1]} | EXTRA.get(name, {}) | more
    return pipe_of(name)(prompts, **given).images


def inverted(name, count=2, **more):
    given = {"num_inference_steps": STEPS, "size": SIZE} | EXTRA.get(name, {}) | more
    return invert(pipe_of(name), photos(count), PROMPTS[:count], **given)


def keeping(name, what, **more):
    with keep(pipe_of(name), what, **more) as source:
        trajectory = inverted(name)
    return source, trajectory


@functools.cache
def both(name):
    """Kept while two pictures are inverted, and while they are retraced."""
    what = [LocalBlend(), Replace(joint=0.7), MutualAttention(start=0.4)]
    what += [PlugAndPlay()] if name == "sd" else []
    source, trajectory = keeping(name, what)
    with retrace(pipe_of(name), trajectory), keep(pipe_of(name), what) as expected:
        made(name, PROMPTS)
    return source, trajectory, expected


def closely(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MAKE)
def test_the_inversion_shows_what_the_retraced_picture_would(name):
    source, trajectory, expected = both(name)
    assert source.facts == expected.facts
    assert source.facts.timesteps == trajectory.course.facts.timesteps
    assert set(source.tensors) == set(expected.tensors)
    for place, tensor in expected.tensors.items():
        closely(source.tensors[place], tensor)
    path = [source.tensors[f"latents/{step}/0/cond/"] for step in range(-1, STEPS)]
    closely(torch.stack(path, 1), trajectory.latents.to(path[0]))


def test_that_is_what_the_model_says_on_the_way_to_noise():
    """Step by step from the formula of the inversion, one picture, without the package."""
    source, trajectory, _ = both("sd")
    pipe, site = pipe_of("sd"), "mid_block.attentions.0.transformer_blocks.0.attn2"
    pipe.scheduler.set_timesteps(STEPS)
    times = pipe.scheduler.timesteps
    of_run = pipe.scheduler.alphas_cumprod, times, pipe.scheduler.final_alpha_cumprod
    model, start = unet_of(pipe, PROMPTS[1]), trajectory.latents[1, -1]
    path, queries = reference.ddim_inverted(model, start, *of_run), []
    hook = pipe.unet.get_submodule(site).to_q.register_forward_hook(
        lambda _, __, output: queries.append(output[0])
    )
    for step in range(2):  # 0.8 of three
        model(path[step + 1], times[step])
        found = source.tensors[f"query/{step}/0/cond/{site}"][1]
        closely(found.transpose(0, 1).flatten(1), queries[-1])
        closely(source.tensors[f"latents/{step}/0/cond/"][1], path[step + 1])
    hook.remove()
    assert f"query/2/0/cond/{site}" not in source.tensors


@pytest.mark.parametrize(("name", "guidance"), [("sd", 3.0), ("euler", 3.0), ("sd3", 3.0),
                                                ("flux", 1.0)])  # fmt: skip
def test_edits_of_it_are_those_in_a_batch_with_the_picture(name, guidance):
    """Their source has guidance there, which changes nothing of its conditional branch."""
    source, trajectory, _ = both(name)
    pipe, in_batch = pipe_of(name), (0, 1, 0, 1)

    def edits(of):
        blend, mine = LocalBlend(source=of, start=0.0, threshold=0.9), Replace(of, joint=0.7)
        return edit(pipe, [On(blend), On(mine)])

    with retrace(pipe, trajectory), edits(in_batch):
        expected = made(name, [*PROMPTS, *CHANGED], guidance)[2:]
    with retrace(pipe, trajectory, images=()), edits(source):
        closely(made(name, CHANGED, guidance), expected)
    if name == "sd3":
        with retrace(pipe, trajectory, images=()):
            assert (made(name, CHANGED, guidance) - expected).abs().max() > 1e-4
        with retrace(pipe, trajectory[1], images=()), edits(source[1]):
            both_of_one = made(name, CHANGED, guidance)
        closely(both_of_one[1], expected[1])
        assert (both_of_one[0] - expected[0]).abs().max() > 1e-3


def test_in_a_folder_and_in_a_file_it_is_the_same(tmp_path):
    source, trajectory, _ = both("sd")
    what = [LocalBlend(), Replace(), MutualAttention(start=0.4), PlugAndPlay()]
    before = state(pipe_of("sd"))
    streamed, again = keeping("sd", what, to=tmp_path / "folder")
    assert torch.equal(again.latents, trajectory.latents)
    assert not changes(before, state(pipe_of("sd")))
    source.save(tmp_path / "one.safetensors")
    for other in (streamed, kept(tmp_path / "folder"), kept(tmp_path / "one.safetensors")):
        assert other.facts == source.facts
        assert set(other.tensors) == set(source.tensors)
        assert all(torch.equal(other.tensors[name], of) for name, of in source.tensors.items())


@pytest.mark.parametrize("method", [DDIMInversion(), PnPInversion(), NullText(2.0, iterations=1)])
def test_other_methods_are_kept_on_the_way_to_noise(method):
    pipe, expected = pipe_of("sd"), both("sd")[2].tensors
    with record(pipe, ["frog"]) as maps:  # which sees the pipeline's own run alone
        with keep(pipe, [Replace(), Within((0.0, 0.0, 0.5, 1.0))]) as source:
            trajectory = inverted("sd", method=method)
        made("sd", "a frog", num_inference_steps=1)
    assert maps.prompts == ("a frog",)
    assert torch.equal(trajectory.latents, both("sd")[1].latents)
    assert f"picture/{STEPS - 1}/0/cond/" in source.tensors
    for name, tensor in source.tensors.items():
        closely(tensor, expected[name])


def test_an_inversion_with_guidance_keeps_both_branches():
    pipe = pipe_of("sd")
    with keep(pipe, MutualAttention(start=0.0)) as source:
        trajectory = inverted("sd", guidance_scale=2.0)
    assert source.facts.branches == ("cond", "uncond")
    edited = [edit(pipe, MutualAttention(of, start=0.0)) for of in ((0, 1, 0, 1), source)]
    with retrace(pipe, trajectory), edited[0]:
        expected = made("sd", [*PROMPTS, *CHANGED], 2.0)[2:]
    with retrace(pipe, trajectory, images=()), edited[1]:
        closely(made("sd", CHANGED, 2.0), expected)


def test_what_cannot_be_kept_or_retraced_is_refused():
    pipe, other = pipe_of("sd"), pipe_of("sd3")
    (_, trajectory, _), before = both("sd"), state(pipe)  # after a run, which sets fields
    with pytest.raises(CouplingError, match=r"denoiser was never called.* such as E"), \
            keep(pipe, Replace()):  # fmt: skip
        inverted("sd", method=FixedPoint(2))
    with pytest.raises(CouplingError, match=r"one keep.* block keeps one pipeline call"), \
            keep(pipe, Replace()):  # fmt: skip
        inverted("sd")
        made("sd", PROMPTS)
    with pytest.raises(SizeError, match="hold more than"), keep(pipe, Replace(), limit=1e4):
        inverted("sd")
    for method, name in ((NegativePrompt(), "sd"), (FlowEdit(), "sd3")):
        one = inverted(name, method=method)
        message = f"with {type(method).__name__} edits need the picture in their batch"
        with pytest.raises(CouplingError, match=message), \
                retrace(pipe_of(name), one, images=()):  # fmt: skip
            pass
    message = r"of 2 pictures, but the pipeline makes 1 images: name one picture for all"
    with pytest.raises(CouplingError, match=message), retrace(pipe, trajectory, images=()):
        made("sd", PROMPTS[:1])
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)
    assert not left_behind(other)
