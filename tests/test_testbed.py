"""The bundled model: loads in the ordinary way, draws what it is asked for, and its word maps point
at the objects."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from attncontrol import record, sprites, steer
from attncontrol.analysis.grounding import ALL
from attncontrol.bench.measure import make, pairs, point, read
from attncontrol.losses import AttendAndExcite
from attncontrol.objectives.descent import Descent, Relative
from attncontrol.sprites.models import reading
from attncontrol.sprites.scenes import Thing
from attncontrol.sprites.scorer import detect, shows


def loaded(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = DiffusionPipeline.from_pretrained(sprites.path(sprites.MODELS[name]))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def sd():
    return loaded("sprites")


@pytest.fixture(scope="module", params=list(sprites.MODELS))
def model(request):
    """Its name and its pipeline."""
    return request.param, loaded(request.param)


@pytest.mark.parametrize("folder", sprites.MODELS.values())
def test_size(folder):
    assert (
        sum(file.stat().st_size for file in Path(sprites.path(folder)).rglob("*") if file.is_file())
        <= 12e6
    )


def test_what_models_share_is_stored_once():
    weights = Path(sprites.path("sd")).parent
    known = [file.read_bytes() for file in weights.rglob("*.safetensors")]
    assert len(known) == len(set(known)) == 13
    assert sum(map(len, known)) < 36.5e6
    for name in ("sd3", "flux", "pixart"):
        autoencoder = Path(sprites.path(name)) / "vae"
        assert autoencoder.resolve() == (weights / "sd" / "vae").resolve()


def test_names():
    known = ", ".join(sorted(sprites.MODELS.values()))
    with pytest.raises(ValueError, match=f"no bundled model is called 'sd9'; there are: {known}"):
        sprites.path("sd9")


def test_it_loads_in_float32_and_runs_in_bfloat16(sd):
    assert sd.unet.dtype == sd.text_encoder.dtype == torch.float32
    half = StableDiffusionPipeline.from_pretrained(sprites.path("sd"), dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    with steer(half, AttendAndExcite(["cat", "frog"])) as trace:
        half("a cat and a frog", num_inference_steps=4, output_type="latent")
    assert all(0 <= loss <= 1 for step in trace.steps for loss in step.losses)


def test_word_maps_point_at_the_objects(model):
    name, pipe = model
    scores = point(pipe, scenes=40, timesteps=(500.0,), **reading(name))["noun"]
    assert scores[0]["site"] == ALL
    assert scores[0]["timestep"] == 500
    assert scores[0]["n"] == 80
    assert scores[0]["pointing"] >= 0.85
    assert scores[0]["iou"] >= 0.3


def test_ways_of_reading(model):
    name, pipe = model
    rows = {row["method"]: row for row in read(pipe, scenes=8, **reading(name))}
    assert {(row["n"], row["timestep"]) for row in rows.values()} == {(16, 300.0)}
    assert ("ConceptAttention" in rows) == (name in ("sprites-sd3", "sprites-flux"))
    plain, carried = rows["mean"], rows["mean, propagated twice, cut 0.75 deviations above"]
    along = rows["mean along the edges of the picture, cut 0.5 deviations above"]
    assert along["iou"] > plain["iou"] + 0.02
    if name != "sprites-pixart":  # whose plain maps find objects nearly as well
        assert carried["iou"] > plain["iou"] + 0.02
    assert carried["pointing"] >= 0.8


def test_attend_and_excite_rescues_subjects(model):
    name, pipe = model
    further = Descent(step_size=Relative(0.06))  # on FLUX this loss wants more than the default
    result = pairs(
        pipe,
        "attend-and-excite",
        [100, 101],
        every=40,
        where=None,
        descent=further if name == "sprites-flux" else None,
        **sprites.call(name),
    )
    assert result["present"]["all"]["gain"] > 0.05
    assert result["present"]["all"]["n"] == 16


def test_single_subjects(model):
    name, pipe = model
    things = [
        Thing("cat"),
        Thing("frog"),
        Thing("car", "blue"),
        Thing("balloon", "red"),
        Thing("crown"),
        Thing("apple", "green"),
    ]
    prompts = [f"a {thing.color or ''} {thing.noun}".replace("  ", " ") for thing in things]
    pictures, _ = make(pipe, [(prompt, 0) for prompt in prompts], **sprites.call(name))
    assert (
        np.mean(
            [shows(found, thing) for found, thing in zip(detect(pictures), things, strict=True)]
        )
        >= 5 / 6
    )


def test_recorded_maps_follow_the_prompt_order_of_the_batch(sd):
    with record(sd, {"a cat": ["cat"], "a red car": ["car"]}) as maps:
        sd(
            ["a cat", "a red car"],
            num_inference_steps=3,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )
    assert maps.labels == (("cat",), ("car",))
    assert maps.mean().shape == (2, 16, 16, 1)
