from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from attncontrol import Descent, On, Where, edit, steer
from attncontrol.edits import LocalBlend, MutualAttention, Replace
from attncontrol.errors import SettingError, WordError
from attncontrol.losses import AttendAndExcite, Auto, BoxDiff, SynGen
from tests.kit import zoo
from tests.kit.runs import run
from tests.kit.tiny import tiny_sd

FOLDER = Path(__file__).parents[1] / "pipelines"


def test_attend_and_excite_pipeline(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "cache")
    )
    base = tiny_sd(dtype=torch.float32)
    base.save_pretrained(tmp_path / "model")
    pipe = DiffusionPipeline.from_pretrained(
        tmp_path / "model",
        custom_pipeline=str(FOLDER / "attend_and_excite.py"),
        trust_remote_code=True,
    )
    assert type(pipe).__name__ == "AttendAndExcitePipeline"
    pipe.set_progress_bar_config(disable=True)
    where, descent = Where(kind="cross", stride=2), Descent(step_size=10.0)
    call = {"num_inference_steps": 3, "height": 64, "width": 64, "output_type": "latent"}

    def seeded():
        return torch.Generator().manual_seed(0)

    ours = pipe(
        "a cat and a frog",
        words=["cat", "frog"],
        where=where,
        descent=descent,
        generator=seeded(),
        **call,
    ).images
    assert pipe.trace.step_size == 10.0
    with steer(base, AttendAndExcite(["cat", "frog"]), where=where, descent=descent):
        expected = base("a cat and a frog", generator=seeded(), **call).images
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    with pytest.raises(WordError, match="'dog' is not in the prompt"):
        pipe("a cat", words=["dog"], **call)


def loaded(base, name, folder, monkeypatch):
    """A pipeline of ``pipelines/`` with the parts of another one."""
    cache = "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(folder / "cache"))
    base.save_pretrained(folder / "model")
    pipe = DiffusionPipeline.from_pretrained(
        folder / "model", custom_pipeline=str(FOLDER / f"{name}.py"), trust_remote_code=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_controlled_pipeline_with_objectives(tmp_path, monkeypatch):
    base = tiny_sd(dtype=torch.float32)
    pipe = loaded(base, "controlled_sd", tmp_path, monkeypatch)
    where, descent = Where(kind="cross", stride=2), Descent(step_size=10.0, thresholds={})
    call = {"num_inference_steps": 3, "height": 64, "width": 64, "output_type": "latent"}
    boxes = {"cat": (0.0, 0.2, 0.5, 0.8), "frog": (0.5, 0.2, 1.0, 0.8)}
    prompt = "a red cat and a frog"

    def seeded():
        return torch.Generator().manual_seed(0)

    for options, objective in (
        ({"objective": "auto"}, Auto()),
        ({"objective": "boxdiff", "boxes": boxes}, BoxDiff(boxes)),
        ({"objective": "syngen", "words": [["red", "cat"]]}, SynGen([["red", "cat"]])),
        ({"objective": 2.0 * SynGen()}, 2.0 * SynGen()),
    ):
        ours = pipe(
            prompt, where=where, descent=descent, generator=seeded(), **options, **call
        ).images
        with steer(base, objective, where=where, descent=descent) as trace:
            expected = base(prompt, generator=seeded(), **call).images
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        assert [step.losses for step in pipe.trace.steps] == [
            pytest.approx(step.losses, abs=1e-5) for step in trace.steps
        ]
    plain = pipe(prompt, generator=seeded(), **call).images
    assert pipe.trace is None
    torch.testing.assert_close(plain, base(prompt, generator=seeded(), **call).images)
    with pytest.raises(SettingError, match="no method is called rainbow: choose from a-star"):
        pipe(prompt, objective="rainbow", **call)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
def test_controlled_pipelines_edit(name, tmp_path, monkeypatch):
    base = getattr(zoo, name)().to(torch.float32)
    pipe = loaded(base, f"controlled_{name}", tmp_path, monkeypatch)
    prompts = ["a red cat and a frog", "a blue cat and a frog"]
    for given, edits in (
        ("replace@0.5", Replace(cross=0.5, among=0.25, joint=0.125)),
        (MutualAttention(start=0.0), MutualAttention(start=0.0)),
        ([On(LocalBlend())], LocalBlend()),
    ):
        ours = run(name, pipe, prompts, seed=[1, 1], edit=given)
        with edit(base, edits):
            expected = run(name, base, prompts, seed=[1, 1])
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", list(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_pipelines_are_thin(path):
    assert len(path.read_text("utf-8").splitlines()) <= 80
