"""Caches that take what blocks put out from earlier steps: what is recorded beside them, and which
passes compute all."""

from contextlib import ExitStack

import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)

from attncontrol import Descent, Where, edit, load, perturb, record, steer
from attncontrol.edits import Reweight, SoftIdentity
from attncontrol.errors import BackendError
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import run
from tests.kit.state import changes, left_behind, state
from tests.kit.zoo import flux

STEPS = 4
SINGLE = Where(layers=("single_transformer_blocks",))
DESCENT = Descent(step_size=20.0, thresholds={}, guided=1.0)
PAB = PyramidAttentionBroadcastConfig(
    spatial_attention_block_skip_range=2,
    spatial_attention_timestep_skip_range=(-1, 2000),
    spatial_attention_block_identifiers=("transformer_blocks",),
    current_timestep_callback=lambda: 500,
)
MAG = MagCacheConfig(
    threshold=5.0, num_inference_steps=STEPS, mag_ratios=[1.0] * STEPS, retention_ratio=0.3,
    max_skip_steps=1,
)  # fmt: skip
CACHES = {  # and the steps in which it leaves the last block out
    "first block": (FirstBlockCacheConfig(threshold=0.9), [1, 2, 3]),
    "taylor": (TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=2), [2]),
    "mag": (MAG, [1, 3]),
    "pyramid": (PAB, [1, 3]),
}
VERBS = {
    "steer": lambda pipe: steer(pipe, AttendAndExcite(["cat"]), descent=DESCENT),
    "perturb": lambda pipe: perturb(pipe, SoftIdentity(), scale=2.0, where=SINGLE),
    "edit": lambda pipe: edit(pipe, Reweight({"red": 3.0})),
}


def made(pipe, *verbs):
    with ExitStack() as stack:
        for verb in verbs:
            stack.enter_context(VERBS[verb](pipe))
        return run("flux", pipe, steps=STEPS)


@pytest.fixture(scope="module")
def computed():
    """Without a cache."""
    pipe = flux()
    found = {verbs: made(pipe, *verbs) for verbs in [(), ("perturb",), tuple(VERBS)]}
    with record(pipe, ["cat"], keep=["step"]) as maps:
        made(pipe)
    return found, maps


@pytest.mark.parametrize("name", CACHES)
def test_records_say_which_steps_have_none(name, computed, tmp_path):
    config, skipped = CACHES[name]
    pipe, (latents, exact) = flux(), computed
    pipe.transformer.enable_cache(config)
    plain, before = made(pipe), state(pipe)
    assert (plain - latents[()]).abs().max() > 1e-3
    said = rf"a cache .* left attention out in steps \[{', '.join(map(str, skipped))}\] of {STEPS}"
    for to in (None, tmp_path / "run") if name == "taylor" else (None,):
        with (
            pytest.warns(UserWarning, match=said),
            record(pipe, ["cat"], keep=["step"], to=to) as maps,
        ):
            assert torch.equal(made(pipe), plain)
        layer = maps.recording.layers["single_transformer_blocks.1.attn"]
        nothing = layer.isnan().flatten(3).all(-1)[0, 0]
        assert nothing.nonzero()[:, 0].tolist() == skipped
        assert maps["cat"].isfinite().all()
    first = exact.recording.layers["single_transformer_blocks.1.attn"][:, :, 0]
    assert torch.equal(layer[:, :, 0], first)
    if name == "taylor":
        assert torch.equal(load(tmp_path / "run")["cat"], maps["cat"])
        with record(pipe, ["cat"], steps=[0]):  # of which nothing is to be said
            made(pipe)
    assert not changes(before, state(pipe))


@pytest.mark.parametrize("name", ["first block", "pyramid"])
def test_passes_of_edits_compute_all(name, computed):
    pipe, latents = flux(), computed[0]
    pipe.transformer.enable_cache(CACHES[name][0])
    plain, before = made(pipe), state(pipe)
    for verbs in [each for each in latents if each]:
        torch.testing.assert_close(made(pipe, *verbs), latents[verbs], rtol=0, atol=1e-12)
    with pytest.raises(KeyboardInterrupt), edit(pipe, stop, where=SINGLE):
        made(pipe)
    pipe.transformer._reset_stateful_cache()  # as pipelines do when they end
    assert torch.equal(made(pipe), plain)
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["taylor", "mag"])
def test_steering_leaves_the_state_of_the_cache_alone(name):
    pipe = flux()
    pipe.transformer.enable_cache(CACHES[name][0])
    plain = made(pipe)
    flat = steer(pipe, lambda maps: 0 * maps.mean()[..., 1].flatten(1).mean(1), descent=DESCENT)
    with flat:
        assert torch.equal(made(pipe), plain)
    with VERBS["steer"](pipe) as trace:
        moved = made(pipe)
    assert (moved - plain).abs().max() > 1e-4
    assert all(step.moves[0] > 0 for step in trace.steps)


def test_what_is_cached_by_rows_is_refused():
    pipe = flux()
    config = FasterCacheConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    )
    pipe.transformer.enable_cache(config)
    with pytest.raises(BackendError, match="FasterCache leaves the unconditional rows"):
        record(pipe, ["cat"]).__enter__()
