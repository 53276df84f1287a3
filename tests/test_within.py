"""Within: whole runs against a loop over cells, pictures to the last bit, kept sources."""

import numpy as np
import pytest
import torch

from attncontrol.edits import Replace, Within
from attncontrol.errors import EditError, SettingError
from attncontrol.verbs.edit import edit
from attncontrol.verbs.invert import invert
from attncontrol.verbs.keep import keep
from attncontrol.verbs.retrace import retrace
from tests.kit.runs import run, stepped
from tests.kit.zoo import flux, sd, sd3

PROMPTS = ["a red cat and a frog", "a blue cat and a frog", "a dog"]
BOX = (0.3, 0.0, 0.8, 0.55)
CASES = {
    "sd": (sd, (8, 12), {"guidance_scale": 3.0}),
    "sd3": (sd3, (8, 12), {"guidance_scale": 1.0}),
    "flux": (flux, (4, 6), {"true_cfg_scale": 3.0, "negative_prompt": [""] * 3}),
}


def touches(y, x, height, width):
    left, top, right, bottom = BOX
    across = x < right * width and x + 1 > left * width
    return across and y < bottom * height and y + 1 > top * height


@pytest.mark.parametrize("name", CASES)
def test_latents_are_the_sources_beyond_the_cells_of_a_box(name):
    make, (height, width), call = CASES[name]
    pipe = make()

    def blend(_, latents):
        for y in range(height):
            for x in range(width):
                cell = (y * width + x,) if latents.ndim == 3 else (..., y, x)
                if not touches(y, x, height, width):
                    latents[1][cell] = latents[0][cell]
                    latents[2][cell] = latents[0][cell]

    with stepped(pipe.scheduler, blend):
        expected = run(name, pipe, PROMPTS, steps=3, **call)
    plain = run(name, pipe, PROMPTS, steps=3, **call)
    with edit(pipe, Within(BOX)):
        found = run(name, pipe, PROMPTS, steps=3, **call)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert torch.equal(found[0], plain[0])
    assert not torch.equal(found[1:], plain[1:])


def test_a_mask_in_pixels_and_a_kept_source():
    """What lies outside of it is the source's to the last bit, half of it half; beside Replace."""
    pipe, prompts = sd(), PROMPTS[:2]
    height, width = (8 * pipe.vae_scale_factor, 12 * pipe.vae_scale_factor)
    mask = torch.zeros(height, width)
    mask[: height // 2, width // 3 :], mask[0, -1] = 1.0, 0.5
    call = {"guidance_scale": 3.0, "output_type": "pt", "steps": 3}
    with edit(pipe, Within(mask)), edit(pipe, Replace()):
        source, edited = run("sd", pipe, prompts, seed=[0, 0], **call)
    with keep(pipe, [Within(mask), Replace()]) as kept:
        alone = run("sd", pipe, prompts[:1], **call)[0]
    with edit(pipe, Within(mask, source=kept)), edit(pipe, Replace(source=kept)):
        again = run("sd", pipe, prompts[1:], **call)[0]
    outside = (mask == 0).expand_as(source)
    assert torch.equal(source[outside], edited[outside])
    assert (source - edited).abs()[mask.expand_as(source) == 1].mean() > 1e-4
    torch.testing.assert_close(alone, source, rtol=0, atol=1e-9)
    torch.testing.assert_close(again, edited, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("region", "wrong"),
    [(torch.zeros(4, 4), "is empty"), (torch.full((4, 4), 2.0), "between 0 and 1, not 2 to 2"),
     ((0.5, 0.0, 0.5, 1.0), r"left \(0.5\) must be less than right")],
)  # fmt: skip
def test_regions_that_are_none(region, wrong):
    with pytest.raises(SettingError, match=wrong):
        Within(region)


@pytest.mark.parametrize("name", CASES)
def test_noise_of_its_own_in_the_box_of_a_photo(name):
    """As a run that is given latents: in the cells of the box those that the pipeline draws,
    elsewhere those that the picture became, which is put back there after every step."""
    make, (height, width), call = CASES[name]
    call = {key: value[:2] if isinstance(value, list) else value for key, value in call.items()}
    pipe, prompts = make(), PROMPTS[:2]
    photo = np.random.default_rng(3).integers(0, 256, (64, 96, 3), np.uint8)
    trajectory = invert(pipe, photo, prompts[0], num_inference_steps=3)
    with retrace(pipe, trajectory), edit(pipe, Within(BOX, anew=True)):
        found = run(name, pipe, prompts, steps=3, **call)
    (path,), drawn = trajectory.latents, []
    prepare = pipe.prepare_latents

    def prepared(*args, **kwargs):
        drawn.append(prepare(*args, **kwargs))
        return drawn[-1]

    pipe.prepare_latents = prepared
    run(name, pipe, prompts, steps=1, **call)
    start = drawn[0][0] if isinstance(drawn[0], tuple) else drawn[0]
    del pipe.prepare_latents

    def blend(step, latents):
        latents[0] = path[step + 1]
        for y in range(height):
            for x in range(width):
                cell = (y * width + x,) if latents.ndim == 3 else (..., y, x)
                if not touches(y, x, height, width):
                    latents[1][cell] = path[step + 1][cell]

    start = start.clone()
    blend(-1, start)
    with stepped(pipe.scheduler, blend):
        expected = run(name, pipe, prompts, steps=3, latents=start, **call)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert (found[1] - path[-1]).abs().amax() > 0.1
    late = edit(pipe, Within(BOX, anew=True), steps=(0.5, 1.0))
    with (
        pytest.raises(EditError, match=r"changes what a run begins with, but steps=\(0.5, 1.0\)"),
        retrace(pipe, trajectory),
        late,
    ):
        run(name, pipe, prompts, steps=3, **call)
    with retrace(pipe, trajectory), edit(pipe, Within(BOX), steps=(0.5, 1.0)):
        run(name, pipe, prompts, steps=3, **call)
