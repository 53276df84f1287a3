"""AddIt: whole runs against written-out loops."""

import pytest
import torch

from attncontrol.edits import AddIt
from attncontrol.errors import SettingError, SiteError, WordError
from attncontrol.verbs.edit import edit
from attncontrol.verbs.record import record
from tests.kit.runs import run, stepped
from tests.kit.zoo import flux, sd, sd3
from tests.reference import editing as slow
from tests.reference.adding import Added

PROMPTS = ["a red cat", "a red cat and a frog"]
TOTAL = 6
GRIDS = {24: (4, 6)}
CLIP = 32
# the model, branches by call of the denoiser, the shape of the latents, the call
CALLS = {
    "flux": (flux, (("cond",),), (2, 24, 16), {}),
    "flux guided": (
        flux, (("cond",), ("uncond",)), (2, 24, 16),
        {"true_cfg_scale": 3.0, "negative_prompt": [""] * 2},
    ),
    "sd3": (sd3, (("uncond", "cond"),), (2, 4, 8, 12), {"guidance_scale": 3.0}),
}  # fmt: skip


def both(call, what, gamma, *, double=2, single=4, structure=1, blend=3, **auto):
    """Latents of the plain run, the edited one and that by hand."""
    make, branches, shape, arguments = CALLS[call]
    pipe, name = make(), call.split()[0]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    call = arguments | {"latents": noise, "steps": TOTAL}
    read = pipe.tokenizer_3 if name == "sd3" else pipe.tokenizer_2
    words = slow.positions(read, PROMPTS[1], "frog", CLIP if name == "sd3" else 0)
    if name == "sd3":
        words = slow.positions(pipe.tokenizer, PROMPTS[1], "frog") + words
    oracle = Added(
        gamma, double, single, structure, blend, noise,
        lambda step: float(pipe.scheduler.timesteps[step]) / 1000, {1: words}, (4, 6), **auto,
    )  # fmt: skip
    plain = run(name, pipe, PROMPTS, **call)
    with slow.written_out(
        pipe, oracle, images=2, total=TOTAL, branches=branches, grids=GRIDS,
        texts={"sd3": CLIP + 16, "flux": 16}[name], picture_first=name != "flux",
    ), stepped(pipe.scheduler, oracle.after):  # fmt: skip
        expected = run(name, pipe, PROMPTS, **call)
    with edit(pipe, what):
        edited = run(name, pipe, PROMPTS, **call)
    assert torch.equal(edited[0], plain[0])
    size = plain.abs().max()
    return plain / size, edited / size, expected / size


@pytest.mark.parametrize("call", CALLS)
def test_it_equals_written_out_loops(call):
    plain, edited, expected = both(call, AddIt("frog", gamma=1.1), 1.1)
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-10)
    assert (edited - plain)[1].abs().max() > 1e-3


@pytest.mark.parametrize(("call", "ratio"), [("flux", 0.9), ("sd3", 1.0)])
def test_gamma_is_the_root(call, ratio):
    what = AddIt("frog", gamma="auto", ratio=ratio)
    _, edited, expected = both(call, what, None, measured=1, ratio=ratio)
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-6)


def test_parts_may_be_left_out_and_others_compose():
    pipe = flux()
    plain = run("flux", pipe, PROMPTS, seed=[1, 2], steps=3)
    found = []
    for more in ({}, {"structure": None}, {"blend": None}, {"layers": ("single*",)}):
        with edit(pipe, AddIt("frog", **more)), record(pipe, ["cat"]):
            found.append(run("flux", pipe, PROMPTS, seed=[1, 2], steps=3))
        assert torch.equal(found[-1][0], plain[0])
    for i, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-4 for other in found[:i])


def test_what_cannot_be_is_refused():
    with pytest.raises(SiteError, match=r"no attention site matches Where\(kind='joint'"):
        edit(sd(), AddIt("frog")).__enter__()
    with (
        pytest.raises(WordError, match="'hat' is not in the prompt"),
        edit(pipe := flux(), AddIt("hat")),
    ):
        run("flux", pipe, PROMPTS)
    for wrong in ({"gamma": 0.0}, {"blend": 1.5}, {"ratio": -1.0}):
        with pytest.raises(SettingError, match=rf"AddIt\.{next(iter(wrong))} must be"):
            AddIt("frog", **wrong)
