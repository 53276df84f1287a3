"""Compiled denoisers: blocks that are looked into run eagerly inside a block of ours, all others
stay compiled, and nothing is compiled again afterwards. Without a C++ compiler: dynamo alone."""

from contextlib import ExitStack

import pytest
import torch
from torch._dynamo.utils import counters

from attncontrol import Descent, Where, edit, perturb, record, steer
from attncontrol.edits import SoftIdentity
from attncontrol.errors import BackendError
from attncontrol.families.known import family_of
from attncontrol.losses import AttendAndExcite
from attncontrol.running.session import attach
from attncontrol.running.wiring import wiring_of
from tests.kit.runs import run
from tests.kit.state import changes, left_behind, state
from tests.kit.zoo import flux, sana
from tests.kit.zoo_newer import sprint

FIRST = Where(layers=("transformer_blocks.0",))
LAST = Where(layers=("single_transformer_blocks.1",))
DESCENT = Descent(step_size=20.0, thresholds={}, guided=1.0)
VERBS = {
    "record": lambda pipe: record(pipe, ["cat"], where=LAST),
    "steer": lambda pipe: steer(pipe, AttendAndExcite(["cat"]), where=LAST, descent=DESCENT),
    "perturb": lambda pipe: perturb(pipe, SoftIdentity(), scale=2.0, where=LAST),
    "edit": lambda pipe: edit(pipe, lambda c, _: c.replace(value=2 * c.value), where=FIRST),
}
COMPILED = {
    "blocks": lambda pipe: pipe.transformer.compile_repeated_blocks(backend="eager"),
    "model": lambda pipe: pipe.transformer.compile(backend="eager"),
    "around": lambda pipe: setattr(
        pipe, "transformer", torch.compile(pipe.transformer, backend="eager")
    ),
    "forward": lambda pipe: setattr(
        pipe.transformer, "forward", torch.compile(pipe.transformer.forward, backend="eager")
    ),
}
STOPPED = KeyboardInterrupt, KeyboardInterrupt(), None
pytestmark = [  # of torch, while it compiles
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


def graphs():
    return counters["stats"]["unique_graphs"]


def made(pipe, *verbs):
    with ExitStack() as stack:
        for verb in verbs:
            stack.enter_context(VERBS[verb](pipe))
        return run("flux", pipe)


@pytest.fixture(scope="module")
def expected():
    """Latents of the uncompiled model."""
    pipe = flux()
    return {verbs: made(pipe, *verbs) for verbs in [(), *((v,) for v in VERBS), tuple(VERBS)]}


def compiled_state(pipe):
    """By identity, what torch compiled."""
    model = getattr(pipe.transformer, "_orig_mod", pipe.transformer)
    modules = [pipe.transformer, *model.modules()]
    names = ("_compiled_call_impl", "forward", "processor")
    return [pipe.transformer] + [vars(each).get(name) for each in modules for name in names]


@pytest.mark.parametrize("how", ["blocks", "around"])
def test_latents_are_those_of_the_uncompiled_model(how, expected):
    pipe = flux()
    COMPILED[how](pipe)
    plain, before = made(pipe), compiled_state(pipe)
    torch.testing.assert_close(plain, expected[()], rtol=0, atol=1e-12)
    for verbs in expected if how == "blocks" else [tuple(VERBS)]:
        torch.testing.assert_close(made(pipe, *verbs), expected[verbs], rtol=0, atol=1e-9)
        again = graphs()
        assert torch.equal(made(pipe), plain)
        assert graphs() == again  # nothing was compiled afterwards,
    made(pipe, *VERBS)
    assert graphs() == again  # nor inside the next block
    after = compiled_state(pipe)
    assert all(one is other for one, other in zip(before, after, strict=True))
    model = getattr(pipe.transformer, "_orig_mod", pipe.transformer)
    assert not wiring_of(model).eager.held
    assert not wiring_of(model).eager.lent


@pytest.mark.parametrize("how", COMPILED)
def test_blocks_that_nobody_looks_into_stay_compiled(how):
    pipe = flux()
    COMPILED[how](pipe)
    model = getattr(pipe.transformer, "_orig_mod", pipe.transformer)
    own = [model.transformer_blocks[0], *model.single_transformer_blocks]
    before = compiled_state(pipe)
    outer, inner = VERBS["record"](pipe), VERBS["edit"](pipe)
    outer.__enter__()
    assert [block._compiled_call_impl is None for block in own] == [False, False, True]
    inner.__enter__()
    assert [block._compiled_call_impl is None for block in own] == [True, False, True]
    assert not outer.__exit__(*STOPPED)  # the outer one first
    assert [block._compiled_call_impl is None for block in own] == [True, False, False]
    assert not inner.__exit__(*STOPPED)
    assert all(one is other for one, other in zip(before, compiled_state(pipe), strict=True))


def test_two_pipelines_share_a_denoiser_that_one_has_compiled():
    one = flux()
    other = type(one)(**one.components)
    COMPILED["around"](one)
    block = other.transformer.single_transformer_blocks[1]
    before = state(other)
    first, second = VERBS["record"](one), VERBS["record"](other)
    first.__enter__()
    second.__enter__()
    for each in (first, second):
        assert not each.__exit__(*STOPPED)
    assert block._compiled_call_impl is None
    assert not changes(before, state(other))
    assert not left_behind(other)


@pytest.mark.parametrize("make", [sana, sprint])  # one class of denoisers, two of pipelines
def test_families_are_found_around_compiled_denoisers(make):
    pipe = make()
    family, denoiser = family_of(pipe), pipe.transformer
    pipe.transformer = torch.compile(denoiser, backend="eager")
    assert family_of(pipe).name == family.name
    assert family_of(pipe).denoiser(pipe) is denoiser
    assert [site.name for site in attach(pipe).sites.values()] == [
        site.name for site in family.sites(denoiser)
    ]


def test_a_class_that_compiles_its_forward_is_refused(monkeypatch):
    pipe = flux()
    cls = type(pipe.transformer.transformer_blocks[0])
    monkeypatch.setattr(cls, "forward", torch.compile(cls.forward, backend="eager"))
    with pytest.raises(BackendError, match=r"FluxTransformerBlock\.forward is compiled in the cl"):
        made(pipe, "record")
