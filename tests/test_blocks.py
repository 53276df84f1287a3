"""Blocks of modular pipelines that open and close contexts of a run."""

from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from diffusers import ModularPipeline
from diffusers.modular_pipelines import ModularPipelineBlocks
from torch import nn

from attncontrol import Descent, Where, edit, record, steer
from attncontrol.edits import Reweight
from attncontrol.errors import CallError, CouplingError
from attncontrol.losses import AttendAndExcite
from attncontrol.running.blocks import open_in_run
from tests.kit import zoo
from tests.kit.modular import inner

FOLDER = Path(__file__).parents[1] / "pipelines"
CALL = {
    "height": 64, "width": 96, "num_inference_steps": 2, "max_sequence_length": 16,
    "prompt": ["a red cat and a turtle", "a red dog"],
}  # fmt: skip


def block(name):
    return ModularPipelineBlocks.from_pretrained(str(FOLDER / name), trust_remote_code=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """FLUX.1 of tiny size, saved."""
    path = tmp_path_factory.mktemp("flux")
    zoo.flux().save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def pipe(folder):
    blocks = ModularPipeline.from_pretrained(folder).blocks.get_workflow("text2image")
    blocks.sub_blocks.insert("install", block("install"), 0)
    blocks.sub_blocks.insert("remove", block("remove"), len(blocks.sub_blocks) - 1)
    pipe = blocks.init_pipeline(folder)
    pipe.load_components(dtype=torch.float64)
    for one in inner(pipe._blocks):
        if hasattr(one, "set_progress_bar_config"):
            one.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, control=None, **more):
    call = CALL | {"generator": torch.Generator().manual_seed(3)} | more
    return tuple(pipe(**call, control=control, output=["latents", "attention"]).values())


@pytest.fixture(scope="module")
def without(pipe):
    """The same components without the blocks."""
    blocks = pipe.blocks
    blocks.sub_blocks.pop("install")
    blocks.sub_blocks.pop("remove")
    other = blocks.init_pipeline()
    other.update_components(**pipe.components)
    return other


def latents_of(pipe, control=None):
    """Those of a run inside the block of ``control``."""
    with control(pipe) if control else nullcontext() as seen:
        latents = pipe(**CALL, generator=torch.Generator().manual_seed(3), output="latents")
    return latents, seen


def recorded(pipe):
    return record(pipe, ["cat", "dog"], keep=["step"])


def steered(pipe):
    descent = Descent(step_size=5.0, thresholds={})
    return steer(pipe, AttendAndExcite(["red"]), descent=descent, where=Where(kind="joint"))


def edited(pipe):
    return edit(pipe, Reweight({"red": 4.0}))


def is_clean(pipe):
    parts = [part for part in pipe.components.values() if part is not None]
    modules = [one for part in parts if isinstance(part, nn.Module) for one in part.modules()]
    kept = [name for one in modules for name in ("forward", "processor") if name in vars(one)]
    hooks = [one._forward_pre_hooks or one._forward_hooks for one in modules]
    return "step" not in vars(pipe.scheduler) and not any(hooks) and "forward" not in kept


def test_a_run_is_recorded_and_its_maps_are_an_output(pipe, without):
    expected, maps = latents_of(without, recorded)
    latents, attention = run(pipe, recorded)
    assert torch.equal(latents, expected)
    assert attention.prompts == maps.prompts
    own, other = attention.of("cond"), maps.of("cond")
    for name, layer in own.layers.items():
        torch.testing.assert_close(layer, other.layers[name], rtol=0, atol=0, equal_nan=True)
    assert is_clean(pipe)


def test_without_a_control_all_words_are_recorded(pipe):
    tokens = run(pipe)[1].of("cond").tokens
    assert [token.text.strip() for token in tokens[1] if not token.special] == ["a", "red", "dog"]


def test_a_run_is_steered_and_edited_by_several_contexts(pipe, without):
    with edited(without):
        expected, trace = latents_of(without, steered)
    latents, (nothing, attention) = run(pipe, [edited, steered])
    assert nothing is None
    assert torch.equal(latents, expected)
    assert [step.losses for step in attention.steps] == [step.losses for step in trace.steps]
    assert (latents - latents_of(without)[0]).abs().max() > 1e-4


@contextmanager
def failing(pipe):
    """The transformer raises in its second call."""
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("in the loop")

    hook = pipe.transformer.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


def left_open(pipe):
    with failing(pipe), pytest.raises(KeyError, match="in the loop"):
        run(pipe, [recorded, edited])
    assert not is_clean(pipe)


@pytest.mark.parametrize("then", [recorded, edited, None])
def test_what_a_failed_run_left_open_is_closed_by_the_next_one(pipe, without, then):
    expected, _ = latents_of(without, then)
    left_open(pipe)
    latents, _ = run(pipe, then)
    assert torch.equal(latents, expected)
    assert is_clean(pipe)


def test_it_is_closed_by_a_run_whose_install_never_comes(pipe, without):
    """The blocks are those of another workflow, or the user took them out."""
    expected, _ = latents_of(without)
    left_open(pipe)
    install = pipe._blocks.sub_blocks.pop("install")
    remove = pipe._blocks.sub_blocks.pop("remove")
    try:
        latents, _ = latents_of(pipe)
    finally:
        pipe._blocks.sub_blocks.insert("install", install, 0)
        pipe._blocks.sub_blocks.insert("remove", remove, len(pipe._blocks.sub_blocks) - 1)
    assert torch.equal(latents, expected)
    assert is_clean(pipe)


def test_it_is_closed_by_the_next_context_and_seen_by_no_other_pipeline(pipe, without):
    expected, _ = latents_of(without)
    left_open(pipe)
    assert torch.equal(latents_of(without)[0], expected)  # shares the transformer
    with pytest.raises(ZeroDivisionError), record(without):
        raise ZeroDivisionError
    assert is_clean(pipe)


def test_blocks_in_another_order_are_refused_with_what_to_do(pipe):
    with pytest.raises(CouplingError, match="for blocks of a modular pipeline that is running"):
        open_in_run(pipe, recorded)
    blocks = pipe.blocks
    blocks.sub_blocks.insert("install", blocks.sub_blocks["install"], 2)
    late = blocks.init_pipeline()
    late.update_components(**pipe.components)
    with pytest.raises(CallError, match="did not run in this call"):
        run(late, recorded)
    assert not is_clean(pipe)
    blocks.sub_blocks.pop("install")
    alone = blocks.init_pipeline()
    alone.update_components(**pipe.components)
    with pytest.raises(CouplingError, match="no block of this run has opened contexts"):
        alone(**CALL)
    assert is_clean(pipe)
