"""Forwards of modules over which somebody has put one of their own."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from attncontrol import Where, edit, perturb, record, steer
from attncontrol.edits import MutualAttention, PlugAndPlay, SoftIdentity
from attncontrol.errors import CouplingError
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import ALL, run

PROMPTS = ["a dog", "a blue dog"]
WEAK = {"scale": 2.0, "where": Where(kind=("self", "joint"))}
CONTEXTS = {
    "edit": lambda pipe: edit(pipe, MutualAttention(start=0.0)),
    "modules": lambda pipe: edit(
        pipe, PlugAndPlay(block="up_blocks.1.resnets.0", layers=("up_blocks.1",))
    ),
    "record": lambda pipe: record(pipe, ["dog"]),
    "steer": lambda pipe: steer(pipe, AttendAndExcite(["dog"])),
    "perturb": lambda pipe: perturb(pipe, SoftIdentity(), **WEAK),
}


def put_over(place, name):
    old = getattr(place, name)
    setattr(place, name, lambda *args, **kwargs: old(*args, **kwargs))


@pytest.mark.parametrize(
    ("name", "verb"), [("sd", verb) for verb in CONTEXTS] + [("flux", "edit"), ("flux", "steer")]
)
def test_a_forward_over_that_of_the_class_changes_nothing(name, verb):
    pictures = []
    for replaced in (False, True):
        pipe = ALL[name]()
        denoiser = getattr(pipe, "unet", None) or pipe.transformer
        for module in denoiser.modules() if replaced else ():
            put_over(module, "forward")
        if replaced:
            put_over(pipe, "encode_prompt")
        with CONTEXTS[verb](pipe):
            pictures.append(run(name, pipe, PROMPTS))
    assert torch.equal(*pictures)


def test_a_class_without_names_for_its_arguments_is_refused(monkeypatch):
    pipe, forward = ALL["sd"](), UNet2DConditionModel.forward
    monkeypatch.setattr(UNet2DConditionModel, "forward", lambda *a, **k: forward(*a, **k))
    with pytest.raises(CouplingError, match="arguments without names"), record(pipe, ["dog"]):
        run("sd", pipe, "a dog")
