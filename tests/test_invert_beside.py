"""Inversion beside what else is open on a pipeline, in other modes of torch and of bad files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from attncontrol import Trajectory, invert, record, retrace, steer
from attncontrol.errors import CouplingError, ModelError, RecordError, SettingError
from attncontrol.inversion import Exact, NullText, RFSolver
from attncontrol.losses import AttendAndExcite
from attncontrol.maps.opened import checksum, checksum_of
from tests.kit.photos import call, photos, with_ddim
from tests.kit.state import changes, left_behind, state
from tests.kit.zoo import EXTRA, ZOO

STEPS = 2
NULL = NullText(iterations=1)


@pytest.fixture(scope="module")
def pipe():
    return with_ddim()


def inverted(pipe, method, **more):
    return invert(pipe, photos(1), "a red cat", method=method, num_inference_steps=STEPS, **more)


@pytest.fixture(scope="module")
def trajectory(pipe):
    return inverted(pipe, NULL)


def test_other_contexts_change_nothing(pipe, trajectory):
    """In a run of them the pipeline is theirs again."""
    before = state(pipe)
    for context in (lambda: retrace(pipe, trajectory), lambda: record(pipe, ["cat"])):
        with context():
            again = inverted(pipe, NULL)
            found = pipe(["a cat"], **call(STEPS)).images
        assert torch.equal(again.latents, trajectory.latents)
        assert torch.equal(again.embeddings, trajectory.embeddings)
        assert torch.isfinite(found).all()
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)


def test_the_solver_of_an_open_retrace_is_not_that_of_an_inversion():
    pipe, more = ZOO["sd3"](), EXTRA["sd3"]
    apart = [inverted(pipe, method, **more) for method in (RFSolver(), Exact())]

    def back():
        return pipe("a red cat", guidance_scale=1.0, **call(STEPS, **more)).images

    with retrace(pipe, apart[0]):
        expected = back()
    before = state(pipe)
    with retrace(pipe, apart[0]):
        for other in apart:
            found = inverted(pipe, other.method, **more)
            assert torch.equal(found.latents, other.latents)
            assert found.course == other.course
        assert torch.equal(back(), expected)
    assert not changes(before, state(pipe))


def test_one_trajectory_at_a_time(pipe, trajectory):
    before = state(pipe)
    message = "another retrace.* is open on this StableDiffusionPipeline"
    with (
        pytest.raises(CouplingError, match=message),
        retrace(pipe, trajectory),
        retrace(pipe, trajectory),
    ):
        pass
    assert not changes(before, state(pipe))


def test_in_inference_mode_it_is_the_same(pipe, trajectory):
    with torch.inference_mode():
        found = inverted(pipe, NULL)
    assert torch.equal(found.embeddings, trajectory.embeddings)
    assert not found.latents.is_inference()
    prompts = ["a red cat", "a blue cat"]
    exact = inverted(pipe, Exact())
    with retrace(pipe, exact), steer(pipe, AttendAndExcite(["cat"]), images=(1,)):
        pictures = pipe(prompts, **call(STEPS)).images
    assert torch.equal(pictures[0], exact.latents[0, -1])


def test_gradients_that_are_needed_and_not_there(tmp_path):
    with torch.inference_mode():
        other = with_ddim()
    with pytest.raises(ModelError, match="loaded under torch"):
        inverted(other, NULL, to=tmp_path / "way")
    assert not list(tmp_path.iterdir())


def test_what_is_not_optimised_yet_is_not_retraced(pipe, trajectory):
    """Also of a tuning that was stopped in its first step."""
    parts = {0: None, 1: trajectory.embeddings[:, :1]}
    for done, embeddings in parts.items():
        part = replace(trajectory, embeddings=embeddings)
        assert (part.optimised, part.complete) == (done, False)
        message = f"of this trajectory {done} of 2 steps are optimised: invert the picture again"
        with pytest.raises(CouplingError, match=message), retrace(pipe, part):
            pass
    assert trajectory.complete
    assert inverted(pipe, Exact()).complete


def test_numbers_of_pictures(trajectory):
    assert torch.equal(trajectory[np.int64(0)].latents, trajectory.latents)
    assert trajectory[np.array([0, 0])].prompts == ("a red cat", "a red cat")
    for wrong in (True, [False], 1, -1, []):
        with pytest.raises(IndexError, match="there is no picture"):
            trajectory[wrong]


def test_a_negative_prompt_is_for_all_pictures(pipe):
    def found(negative):
        given = {"negative_prompt": negative, "guidance_scale": 3.0, "num_inference_steps": 1}
        return invert(pipe, photos(), ["a red cat", "a dog"], **given).latents

    assert torch.equal(found("a frog"), found(["a frog"] * 2))
    assert not torch.equal(found("a frog"), found("a car"))


def test_sizes_that_contradict_each_other(pipe):
    with pytest.raises(SettingError, match=r"height=32 is one side of a picture; give size="):
        inverted(pipe, Exact(), height=32)
    with pytest.raises(SettingError, match=r"height=32, width=48 is not size=\(48, 32\)"):
        inverted(pipe, Exact(), height=32, width=48, size=(48, 32))
    assert inverted(pipe, Exact(), width=48, height=32, size=(32, 48)).size == (32, 48)
    assert inverted(pipe, Exact(), height=None, width=None).size == (64, 96)


def shortened(_, tensors):
    tensors["latents"] = tensors["latents"][:, 1:].contiguous()


def of_floats(_, tensors):
    tensors["pictures"] = tensors["pictures"].float()


WRONG = {
    "schema": (lambda told, _: told.update(schema=9), "has schema 9, this version reads 1"),
    "method": (lambda told, _: told["course"].update(method="New"), "its method is New with"),
    "module": (lambda told, _: told["course"].update(method="_driven"), "method is _driven with"),
    "settings": (lambda told, _: told["course"].update(settings={"x": 1}), "NullText with {'x'"),
    "latents": (shortened, "its tensors are not those of 1 pictures and 2 steps"),
    "pictures": (of_floats, "its tensors are not those of 1 pictures and 2 steps"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_of_other_versions(trajectory, tmp_path, case):
    """Whole ones, whose checksums fit."""
    change, message = WRONG[case]
    file = trajectory.save(tmp_path / "way")
    with safe_open(file, "pt") as stored:
        told = json.loads(stored.metadata()["attncontrol.trajectory"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    change(told, tensors)
    told["checksums"] = {name: checksum(tensor) for name, tensor in tensors.items()}
    text = json.dumps(told)
    about = {"attncontrol.trajectory": text, "attncontrol.checksum": checksum_of(text)}
    save_file(tensors, file, about)
    with pytest.raises(RecordError, match=message):
        Trajectory.load(file)
