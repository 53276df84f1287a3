"""Whatever happens inside contexts, and in whatever order they are closed, nothing is left behind.

Every ordered pair of contexts on a UNet, SD3 and FLUX, closed from inside or from outside, after
every kind of end: normal, errors in all that runs, interruptions in all passes, closed generators.
"""

import itertools
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch

from attncontrol.analysis.concept_attention import concept_attention
from attncontrol.attention.sites import Where
from attncontrol.edits.mutual_attention import MutualAttention
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.errors import CouplingError
from attncontrol.objectives.descent import Descent
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.record import record
from attncontrol.verbs.steer import steer
from tests.kit.runs import run
from tests.kit.state import changes, denoiser_of, left_behind, state
from tests.kit.zoo import ZOO

DESCENT = Descent(step_size=3.0, thresholds={}, guided=1.0)
LAST = {
    "sd": Where(kind="self", layers=("up_blocks.2",)),
    "sd3": Where(layers=("transformer_blocks.2",)),
    "flux": Where(layers=("single_transformer_blocks.1",)),
}
FIRST = {"sd": "conv_in", "sd3": "transformer_blocks.0", "flux": "transformer_blocks.0"}
PROMPTS = ["a red cat", "a blue cat"]


class Fault:
    """Raises where and when it is told to."""

    def __init__(self):
        self.place, self.error = None, ValueError

    def at(self, place):
        if place == self.place:
            self.place = None
            raise self.error("on purpose")


@dataclass(frozen=True)
class Source(MutualAttention):
    """That of image 0, and a fault."""

    fault: Fault = None
    start: float = 0.0

    def __call__(self, call, now):
        self.fault.at(f"edit, {now.purpose}")
        return super().__call__(call, now)


class Bench:
    """A pipeline with contexts that fail on demand."""

    def __init__(self, name):
        self.name, self.pipe, self.fault = name, ZOO[name](), Fault()
        self.plain, self.made = self.run(), {}
        self.state = state(self.pipe)

    def run(self):
        return run(self.name, self.pipe, PROMPTS, steps=1, height=32, width=32)

    def open(self, verb):
        pipe, fault, where = self.pipe, self.fault, LAST[self.name]

        def objective(maps):
            fault.at("objective")
            return maps.mean()[..., 1].flatten(1).mean(1)

        if verb == "record":
            return record(pipe, ["cat"])
        if verb == "steer":
            return steer(pipe, objective, descent=DESCENT)
        if verb == "perturb":
            return perturb(pipe, SoftIdentity(), scale=2.0, where=where)
        if verb == "edit":
            return edit(pipe, Source(fault=fault))
        if verb == "concepts":
            return concept_attention(pipe, ["cat"], max_sequence_length=16)
        assert verb == "hooks"
        return self.hooks()

    @contextmanager
    def hooks(self):
        session = attach(self.pipe)

        def before(_):
            self.fault.at("before")

        def after(_, prediction):
            self.fault.at("after")
            return prediction

        def listen(call, _):
            self.fault.at("listener")
            return call.run()

        own = Hooks(sites=session.sites, before=before, after=after, listen=listen)
        with session.hooked(own):
            yield

    def alone(self, verb):
        """What is made inside one context."""
        if verb not in self.made:
            with self.open(verb):
                self.made[verb] = self.run()
        return self.made[verb]

    def assert_as_before(self):
        assert not changes(self.state, state(self.pipe))
        assert not left_behind(self.pipe)


BENCHES = {}


@pytest.fixture
def bench(request):
    name = request.param
    if name not in BENCHES:
        BENCHES[name] = Bench(name)
    made = BENCHES[name]
    made.assert_as_before()
    yield made
    if changes(made.state, state(made.pipe)) or left_behind(made.pipe):
        del BENCHES[name]  # the next test shall not fail for this one


def places(verbs):
    """All that can raise, and with what."""
    purposes = {"own"} | {"gradient" for v in verbs if v == "steer"}
    purposes |= {"weakened" for v in verbs if v == "perturb"}
    for purpose in sorted(purposes):
        yield from ((f"model, {purpose}", error) for error in (ValueError, KeyboardInterrupt))
        if "edit" in verbs:
            yield f"edit, {purpose}", ValueError
    if "steer" in verbs:
        yield "objective", ValueError


def ordered(names):
    return [*((name,) for name in names), *itertools.product(names, repeat=2)]


VERBS = ("record", "steer", "perturb", "edit")
CASES = [
    *(("sd", verbs) for verbs in ordered(VERBS)),
    *(("sd3", verbs) for verbs in [*ordered(VERBS), ("concepts",)]),
    *(("flux", verbs) for verbs in ordered((*VERBS, "concepts"))),
]
IDS = ["-".join((name, *verbs)) for name, verbs in CASES]
every_case = pytest.mark.parametrize(("bench", "verbs"), CASES, indirect=["bench"], ids=IDS)


@every_case
def test_after_errors_and_interruptions_the_pipeline_is_as_before(bench, verbs):
    first = denoiser_of(bench.pipe).get_submodule(FIRST[bench.name])
    for order, (place, error) in zip(itertools.cycle((1, -1)), places(verbs), strict=False):
        contexts = [bench.open(verb) for verb in verbs]
        for context in contexts:
            context.__enter__()
        session = attach(bench.pipe)
        hook = first.register_forward_pre_hook(
            lambda *_, session=session: bench.fault.at(f"model, {session.purpose}")
        )
        bench.fault.place, bench.fault.error = place, error
        with pytest.raises(error, match="on purpose") as raised:
            bench.run()
        hook.remove()
        for context in contexts[::order]:
            assert not context.__exit__(error, raised.value, raised.tb)
        bench.assert_as_before()
    assert torch.equal(bench.run(), bench.plain)


@every_case
def test_after_a_normal_end_and_closed_generators(bench, verbs):
    ends = ((1, "exit"), (0, "exit"), (0, "close"), *([(1, "close")] if len(verbs) == 1 else []))
    for order, (calls, close) in itertools.product((1, -1), ends):
        contexts = [bench.open(verb) for verb in verbs]
        for context in contexts:
            context.__enter__()
        for _ in range(calls):
            bench.run()
        for context in contexts[::order]:
            if close == "close":
                context.gen.close()
            elif calls:
                context.__exit__(None, None, None)
            else:
                with pytest.raises(CouplingError, match="call this pipeline"):
                    context.__exit__(None, None, None)
        bench.assert_as_before()
    assert torch.equal(bench.run(), bench.plain)


@every_case
def test_one_that_is_left_goes_on_as_if_alone(bench, verbs):
    if len(verbs) == 1:
        return
    for closed, left in ((0, 1), (1, 0)):
        contexts = [bench.open(verb) for verb in verbs]
        for context in contexts:
            context.__enter__()
        contexts[closed].gen.close()
        picture = bench.run()
        contexts[left].__exit__(None, None, None)
        bench.assert_as_before()
        assert torch.equal(picture, bench.alone(verbs[left]))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["before", "listener", "after"])
@pytest.mark.parametrize("bench", ["sd", "sd3", "flux"], indirect=True)
def test_hooks_of_others_may_raise(bench, place, error):
    verbs = ("record", "hooks", "steer", "perturb", "edit")
    for shift in range(len(verbs)):
        contexts = [bench.open(verb) for verb in verbs]
        for context in contexts:
            context.__enter__()
        bench.fault.place, bench.fault.error = place, error
        with pytest.raises(error, match="on purpose") as raised:
            bench.run()
        for context in contexts[shift:] + contexts[:shift]:
            assert not context.__exit__(error, raised.value, raised.tb)
        bench.assert_as_before()
    assert torch.equal(bench.run(), bench.plain)


@pytest.mark.parametrize("bench", ["sd", "sd3", "flux"], indirect=True)
def test_after_an_interruption_the_block_goes_on(bench):
    """The interrupted pass is forgotten by the next call: by hand, and of the pipeline."""
    denoiser, given = denoiser_of(bench.pipe), []
    first = denoiser.get_submodule(FIRST[bench.name])

    def keep(_, args, kwargs, output):
        given.append((args, kwargs, output))

    hook = denoiser.register_forward_hook(keep, with_kwargs=True)
    bench.run()
    hook.remove()
    args, kwargs, output = given[0]
    wanted = bench.alone("perturb")
    with bench.open("perturb"):
        session = attach(bench.pipe)
        hook = first.register_forward_pre_hook(
            lambda *_: bench.fault.at(f"model, {session.purpose}")
        )
        bench.fault.place, bench.fault.error = "model, own", KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            bench.run()
        hook.remove()
        with torch.no_grad():
            assert torch.equal(denoiser(*args, **kwargs)[0], output[0])
        assert torch.equal(bench.run(), wanted)
