"""Wan 2.2, whose denoiser changes in the middle of a run."""

import copy
import gc
import threading
import warnings
from contextlib import nullcontext
from itertools import combinations

import pytest
import torch
from diffusers import FirstBlockCacheConfig, WanImageToVideoPipeline

from attncontrol import Descent, edit, keep, locate, perturb, record, steer
from attncontrol.attention.sites import Where
from attncontrol.edits import MutualAttention, SoftIdentity, Within
from attncontrol.errors import CouplingError, SizeError
from attncontrol.families import wan
from attncontrol.families.known import family_of
from attncontrol.verbs.places import On
from tests.kit.zoo_pictures import PICTURE, PICTURES, wan22_large_picture
from tests.kit.zoo_videos import wan22_large
from tests.reference.loops import Softmax

PROMPTS = ["a red cat and a turtle", "a dog"]
CROSS = Where(kind="cross")


def run(pipe, prompts=PROMPTS, **options):
    if isinstance(pipe, WanImageToVideoPipeline):
        options |= PICTURE
    return pipe(
        prompt=prompts, height=64, width=96, num_frames=5, num_inference_steps=3,
        guidance_scale=2.0, output_type="latent", max_sequence_length=16,
        generator=torch.Generator().manual_seed(0), **options,
    )[0]  # fmt: skip


@pytest.fixture(scope="module")
def pipe():
    return wan22_large()


@pytest.fixture(params=["text", "picture"])
def either(request, pipe):
    with pytest.MonkeyPatch.context() as patched:
        for name, value in PICTURES["wan22-picture"].patches:
            patched.setattr(name, value, raising=False)
        yield pipe if request.param == "text" else wan22_large(wan22_large_picture)


def test_maps_are_those_of_the_denoiser_that_runs(either, monkeypatch):
    pipe = either
    softmax, seen = Softmax(monkeypatch), []
    parts = {"transformer": pipe.transformer, "transformer_2": pipe.transformer_2}
    hooks = [
        module.register_forward_hook(
            lambda *_, name=f"{part}.{name}": seen.append((name, softmax.seen[-1]))
        )
        for part, denoiser in parts.items()
        for name, module in denoiser.named_modules()
        if name.endswith("attn2")
    ]
    plain = run(pipe)
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()
    with record(pipe, {PROMPTS[0]: ["turtle"], PROMPTS[1]: ["dog"]}, keep=("head", "step")) as maps:
        assert torch.equal(run(pipe), plain)
    ran = {name: [p for of, p in seen if of == name][::2] for name in dict(seen)}  # cond
    assert {name: len(runs) for name, runs in ran.items()} == {
        f"{part}.blocks.{block}.attn2": count
        for part, count in (("transformer", 1), ("transformer_2", 2))
        for block in (0, 1)
    }
    assert set(maps.layers) == set(ran)
    words = [locate(pipe, PROMPTS[0], "turtle"), locate(pipe, PROMPTS[1], "dog")]
    for name, runs in ran.items():
        of = maps.layers[name][:, 0]
        steps = range(3)[: len(runs)] if "transformer." in name else range(3)[-len(runs) :]
        for step in range(3):
            if step not in steps:
                assert of[:, step].isnan().all()
                continue
            for image, word in enumerate(words):
                expected = runs[step - steps.start][image][..., list(word.positions)].sum(-1)
                expected = expected.unflatten(-1, (2, 4, 6)).float()
                torch.testing.assert_close(of[image, step, ..., 0], expected, rtol=0, atol=1e-5)


def test_edits_act_in_each_and_in_both(pipe):
    def warm(call, _):
        return call.tempered(0.25)

    outputs = {(): run(pipe)}
    for layers in (("transformer",), ("transformer_2",), ("transformer", "transformer_2")):
        with edit(pipe, warm, where=Where(kind="cross", layers=layers)):
            outputs[layers] = run(pipe)
    for one, other in combinations(outputs.values(), 2):
        assert (one - other).abs().max() > 1e-5


def test_further_passes_are_those_of_the_one_that_runs(pipe):
    """Without a change they predict the same, and guidance by them changes nothing."""
    plain = run(pipe)
    for layers in (("transformer",), ("transformer_2",)):
        for edited, changes in ((SoftIdentity(), True), (lambda call, _: call, False)):
            with perturb(pipe, edited, scale=2.0, where=Where(kind="self", layers=layers)):
                difference = (run(pipe) - plain).abs().max()
            assert (difference > 1e-4) if changes else (difference < 1e-5)


@pytest.mark.parametrize("layers", [(), ("transformer",), ("transformer_2",)])
def test_a_kept_source_is_that_in_the_batch(pipe, layers, tmp_path):
    """Each denoiser is asked in its own steps alone for what was kept."""
    first = torch.randn(1, 4, 2, 8, 12, generator=torch.Generator().manual_seed(1)).double()
    where = Where("self", layers=layers)

    def edits(source):
        within = Within((0.5, 0.0, 1.0, 1.0), source)
        return [On(MutualAttention(source=source, start=0.0), where), On(within)]

    with edit(pipe, edits(0)):
        expected = run(pipe, latents=first.expand(2, -1, -1, -1, -1).contiguous())
    with keep(pipe, edits(0), to=tmp_path / "kept") as source:
        run(pipe, PROMPTS[:1], latents=first)
    with edit(pipe, edits(source)):
        found = run(pipe, PROMPTS[1:], latents=first)
    torch.testing.assert_close(found, expected[1:], rtol=0, atol=1e-9)
    assert (found - run(pipe, PROMPTS[1:], latents=first)).abs().max() > 1e-3


def test_what_the_second_denoiser_takes_is_missed_and_counted(pipe):
    edits, first = MutualAttention(start=0.0), Where("self", layers=("transformer",))
    with keep(pipe, edits, where=first) as source:
        run(pipe)
    missing = pytest.raises(CouplingError, match=r"step 1 at transformer_2\.blocks\.0\.attn1")
    with missing, edit(pipe, MutualAttention(source=source, start=0.0)):
        run(pipe)
    of_a_step = 2 * 2 * 2 * 2 * 48 * 24 * 8  # branches, blocks, key and value, images, in float64
    for limit, refused in ((3.0 * of_a_step, False), (2.9 * of_a_step, True)):
        expected = pytest.raises(SizeError) if refused else nullcontext()
        with expected, keep(pipe, edits, limit=limit):
            run(pipe)


def test_threads_may_share_both_denoisers(pipe):
    """A run of another pipeline in the middle of a step ends with the second one."""
    parts = pipe.components | {"scheduler": copy.deepcopy(pipe.scheduler)}
    other = type(pipe)(**parts, boundary_ratio=0.95)
    other.set_progress_bar_config(disable=True)
    wanted = []

    def interrupt():
        if wanted:
            wanted.clear()
            thread = threading.Thread(target=run, args=(other,))
            thread.start()
            thread.join()

    def warm(call, now):
        if now.purpose == "own":
            interrupt()
        return call.tempered(0.25)

    def loss(maps):
        interrupt()
        return maps.mean()[..., :3].sum(-1).square().flatten(1).sum(1)

    refined = Descent(step_size=5.0, guided=0.0, thresholds={0.0: 0.1}, max_refinements=2)
    for inner, outer in (
        (lambda: steer(pipe, loss, descent=refined), nullcontext),
        (
            lambda: perturb(pipe, warm, scale=2.0, where=CROSS),
            lambda: edit(pipe, warm, where=CROSS),
        ),
    ):
        made = []
        for wanted[:] in ([], [True]):
            with inner(), outer():
                made.append(run(pipe))
        assert not wanted
        assert torch.equal(*made)


@pytest.mark.parametrize(("threshold", "skipped"), [(0.0, []), (10.0, [2])])
def test_a_cache_leaves_out_nothing_of_the_denoiser_that_does_not_run(pipe, threshold, skipped):
    parts = pipe.transformer, pipe.transformer_2
    for part in parts:
        part.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        with warnings.catch_warnings(record=True) as said, record(pipe, ["a"]):
            warnings.simplefilter("always")
            run(pipe)
    finally:
        for part in parts:
            part.disable_cache()
    found = [str(one.message) for one in said if "cache of the denoiser" in str(one.message)]
    assert len(found) == bool(skipped)
    assert all(f"in steps {skipped} of 3" in each for each in found)


def test_edits_of_the_denoiser_that_does_not_run_say_so(pipe):
    where = Where("self", layers=("transformer_2",))
    for verb, options in ((edit, {}), (perturb, {"scale": 2.0})):
        for last in (0.4, 0.6):  # the second begins in the middle
            idle = pytest.warns(UserWarning, match=r"runs in none of the steps where it acts")
            acting = verb(pipe, SoftIdentity(), where=where, steps=(0.0, last), **options)
            with idle if last < 0.5 else nullcontext(), acting:
                run(pipe)


def test_nothing_stays(pipe):
    denoiser = family_of(pipe).denoiser(pipe)
    assert family_of(pipe).denoiser(pipe) is denoiser
    with record(pipe, ["turtle"]):
        run(pipe)
    for part in (pipe.transformer, pipe.transformer_2):
        assert not part._forward_pre_hooks
        assert not part._forward_hooks
    del denoiser
    gc.collect()
    assert (id(pipe.transformer), id(pipe.transformer_2)) not in wan._IN_TURN
