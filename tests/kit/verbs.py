"""The four verbs, each opened in one way on a tiny pipeline that is as it was afterwards."""

from contextlib import contextmanager
from functools import cache

from attncontrol.attention.sites import Where
from attncontrol.edits.mutual_attention import MutualAttention
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.objectives.descent import Descent
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import steer
from tests.kit.runs import run
from tests.kit.state import changes, left_behind, state
from tests.kit.zoo import ZOO

LAST = {
    "sd": Where(kind="self", layers=("up_blocks.2",)),
    "flux": Where(layers=("single_transformer_blocks.1",)),
}
VERBS = ("record", "steer", "perturb", "edit")


def made(name, pipe, *, seed=0, steps=2, **call):
    prompts = ["a red cat", "a blue cat"]
    return run(name, pipe, prompts, seed=seed, steps=steps, height=32, width=32, **call)


@cache
def _kept(name):
    pipe = ZOO[name]()
    made(name, pipe)  # attributes that a first run adds
    return pipe


@contextmanager
def unchanged(name):
    """A pipeline that tests share."""
    pipe = _kept(name)
    before = state(pipe)
    yield pipe
    assert not changes(before, state(pipe))
    assert not left_behind(pipe)


def brighter(maps):
    return maps.mean()[..., 1].flatten(1).mean(1)


def opened(name, pipe, verb):
    if verb == "record":
        return record(pipe, ["cat"])
    if verb == "steer":
        return steer(pipe, brighter, descent=Descent(step_size=3.0, thresholds={}, guided=1.0))
    if verb == "perturb":
        return perturb(pipe, SoftIdentity(), scale=2.0, where=LAST[name])
    return edit(pipe, MutualAttention(start=0.0))
