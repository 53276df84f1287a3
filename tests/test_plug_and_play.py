"""PlugAndPlay: whole runs against written-out blocks."""

import pytest
import torch

from attncontrol.edits import PlugAndPlay
from attncontrol.errors import SettingError, SiteError
from attncontrol.verbs.edit import edit
from attncontrol.verbs.record import record
from tests.kit.runs import run
from tests.kit.zoo import flux, sd, sdxl
from tests.reference import editing as slow
from tests.reference.blocks import features_of_source

PROMPTS = ["a red cat", "a blue cat and a frog"]
TOTAL = 4
BOTH = {"guidance_scale": 3.0}
GRIDS = {96: (8, 12), 24: (4, 6), 6: (2, 3)}
FEATURES = {"sd": "up_blocks.1.resnets.1", "sdxl": "up_blocks.0.resnets.1"}
# the tiny models have fewer blocks than SD 1 and SDXL
ATTENTION = {
    "sd": ("up_blocks.1.attentions.1", "up_blocks.2.attentions"),
    "sdxl": ("up_blocks.0.attentions.1",),
}


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_it_equals_written_out_blocks(name, guided):
    pipe = {"sd": sd, "sdxl": sdxl}[name]()
    call = BOTH if guided else {"guidance_scale": 1.0}
    branches = (("uncond", "cond") if guided else ("cond",),)
    oracle = slow.Taken(
        "qk",
        1,
        lambda at: at.kind == "self" and at.step < 2 and at.name.startswith(ATTENTION[name]),
    )
    block = pipe.unet.get_submodule(FEATURES[name])
    plain = run(name, pipe, PROMPTS, steps=TOTAL, **call)
    with (
        slow.written_out(pipe, oracle, images=2, total=TOTAL, branches=branches, grids=GRIDS),
        features_of_source(block, 1, 2, 3),
    ):
        expected = run(name, pipe, PROMPTS, steps=TOTAL, **call)
    what = PlugAndPlay(source=1) if name == "sd" else replace_source(PlugAndPlay.preset("sdxl"))
    with edit(pipe, what):
        edited = run(name, pipe, PROMPTS, steps=TOTAL, **call)
    size = plain.abs().max()
    torch.testing.assert_close(edited / size, expected / size, rtol=0, atol=1e-12)
    assert torch.equal(edited[1], plain[1])
    assert ((edited - plain)[0] / size).abs().max() > 1e-4
    assert torch.equal(run(name, pipe, PROMPTS, steps=TOTAL, **call), plain)


def replace_source(what):
    return type(what)(1, block=what.block, layers=what.layers)


def test_each_of_both_acts_for_its_own_share_of_the_steps():
    pipe = sd()
    plain = run("sd", pipe, PROMPTS, steps=2)
    runs = []
    for what in (PlugAndPlay(residual=0.0), PlugAndPlay(attention=0.0), PlugAndPlay()):
        with edit(pipe, what), record(pipe, ["cat"]):
            runs.append(run("sd", pipe, PROMPTS, steps=2)[1])
    assert all((one - plain[1]).abs().max() > 1e-4 for one in runs)
    assert (runs[0] - runs[1]).abs().max() > 1e-4
    with edit(pipe, PlugAndPlay(attention=0.0, residual=0.0)):
        assert torch.equal(run("sd", pipe, PROMPTS, steps=2), plain)


def test_models_without_these_blocks_are_refused():
    pipe = flux()
    with pytest.raises(SiteError, match=r"no attention site matches Where\(kind='self'"):
        edit(pipe, PlugAndPlay()).__enter__()
    pipe = sd()
    with pytest.raises(SiteError, match=r"no module of \w+ is 'up_blocks\.7\.conv2'"):
        edit(pipe, PlugAndPlay(block="up_blocks.7")).__enter__()
    with pytest.raises(SettingError, match="'sd4' is no preset; there are sd, sdxl"):
        PlugAndPlay.preset("sd4")
    with pytest.raises(SettingError, match=r"PlugAndPlay\.residual must be a share"):
        PlugAndPlay(residual=1.5)
