"""What every file of ``edits`` keeps to, found by listing. Examples are those of the docstrings."""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from contextlib import ExitStack
from dataclasses import is_dataclass, replace

import pytest
import torch

from attncontrol import edits
from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.edit import Edit
from attncontrol.attention.moment import Moment, Step
from attncontrol.attention.sites import Site, Where
from attncontrol.errors import SiteError
from attncontrol.prompts.text import Text
from attncontrol.running.further import hidden
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import On
from attncontrol.verbs.plan import Plan
from tests.kit.moments import output_of
from tests.kit.records import tokens_of
from tests.kit.runs import run
from tests.kit.zoo import sd, sd3

MODULES = [name for _, name, _ in pkgutil.iter_modules(edits.__path__)]
FILES = [name for name in MODULES if name != "merge" and not name.startswith("_")]
CLASSES = [getattr(edits, name) for name in edits.__all__]
EDITS = [cls for cls in CLASSES if issubclass(cls, Edit)]
PROMPTS = ("a red cat and a frog", "a red dog and a frog", "a red frog and a bird")
DIRECTIONS = {
    site: torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(shape)
    for site, shape in (("there", (4, 8)), ("transformer_blocks.0.attn", (2, 16)))
}
SELF_ONLY = {"SoftIdentity", "LogLinear", "FisherRao"}  # cross-attention has no identity
ALONE = [cls for cls in EDITS if cls.stepped is Edit.stepped and cls.passed is Edit.passed]
each = pytest.mark.parametrize("cls", ALONE, ids=lambda cls: cls.__name__)  # attention alone
of_kinds = pytest.mark.parametrize("kind", ["self", "cross", "joint"])


def shown(cls):
    """The with statement of the example in a docstring: two lines."""
    lines = inspect.cleandoc(cls.__doc__).splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith("with "))
    assert [line.strip() for line in lines[start + 2 : start + 3]] in ([], [""])
    (statement,) = ast.parse(textwrap.dedent("\n".join(lines[start : start + 2]))).body
    return statement


def example(cls):
    """The edit that the example of its docstring makes, acting in the first step."""
    made = ast.unparse(shown(cls).items[0].context_expr.args[1])
    known = {name: getattr(edits, name) for name in edits.__all__} | {"directions": DIRECTIONS}
    what = eval(made, known)
    early = {"start": 0.0, "joint": 0.5, "first": 0.5}
    return replace(what, **{name: v for name, v in early.items() if hasattr(what, name)})


def places(what, kind):
    """The sites of a kind where an edit is defined, None if it is not."""
    belongs = what.where is None or what.where.kind is None or kind in what.where.kind
    defined = kind != "cross" or type(what).__name__ not in SELF_ONLY
    return Where(kind=kind) if belongs and defined else None


@pytest.mark.parametrize("file", FILES)
def test_every_file_has_the_edit_of_its_name(file):
    module = importlib.import_module(f"attncontrol.edits.{file}")
    own = [cls for cls in CLASSES if cls.__module__ == module.__name__]
    assert [cls.__name__.lower() for cls in own] == [file.replace("_", "")]
    assert "arXiv" in module.__doc__ or "guidance" in module.__doc__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_edit_is_a_final_frozen_dataclass_with_an_example(cls):
    assert is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert cls.__bases__ in ((Edit,), (object,))
    assert not [sub for sub in cls.__subclasses__() if sub.__module__.startswith("attncontrol")]
    assert shown(cls).items[0].context_expr.func.id in ("edit", "perturb")
    assert f"{cls.__name__}(" in ast.unparse(shown(cls))


def called(kind, texts=()):
    """A call of three images in two branches, and its moment; with further texts of two tokens."""
    rng = torch.Generator().manual_seed(0)
    cells, text, more = (2, 3), 9, 2 * len(texts)
    queries = {"self": 6, "cross": 6, "joint": 15 + more}[kind]
    keys = {"self": 6, "cross": text + more, "joint": 15 + more}[kind]
    query, key, value = (
        torch.randn(6, 4, n, 8, generator=rng, dtype=torch.float64) for n in (queries, keys, keys)
    )
    layout = {
        "self": Layout(cells, text=slice(0)),
        "cross": Layout(cells),
        "joint": Layout(cells, slice(6), slice(6, None)),
    }[kind]
    call = AttentionCall(Site("there", kind, 4, 1), query, key, value)
    if texts:
        places = {text: slice(2 * i, 2 * i + 2) for i, text in enumerate(texts)}
        call, layout = hidden(call, layout, places)
    now = Moment(
        Step(1, 10, 1.0, 1.0, {}), layout, "own", ("uncond", "cond"), (0, 1, 2),
        Text(PROMPTS, lambda image: tokens_of(PROMPTS[image])),
    )  # fmt: skip
    return call, now


def of_images(call, now, images):
    rows = [branch * 3 + image for branch in range(2) for image in images]
    return call.rows(rows), replace(now, images=tuple(images))


@of_kinds
@each
def test_images_and_heads_are_edited_independently(cls, kind):
    what = example(cls)
    call, now = called(kind, what.texts)
    if places(what, kind) is None:
        if cls.__name__ in SELF_ONLY:
            with pytest.raises(SiteError, match="have no identity"):
                what(call, now)
        return
    whole = output_of(what(call, now))
    assert whole.dtype == torch.float64
    assert whole.isfinite().all()
    assert (whole - call.run()).abs().max() > 1e-3
    heads = output_of(what(call.of_heads([2, 0]), now))
    torch.testing.assert_close(heads, whole[:, [2, 0]], rtol=0, atol=1e-10)
    kept = [1] if what.source is None else sorted({what.source, 1})
    fewer = output_of(what(*of_images(call, now, kept)))
    expected = whole[[branch * 3 + image for branch in range(2) for image in kept]]
    torch.testing.assert_close(fewer, expected, rtol=0, atol=1e-10)
    if what.source is not None:
        own = [what.source, 3 + what.source]
        assert torch.equal(whole[own], call.run()[own])


def in_the_second_half(what):
    """None for an edit that always acts."""
    if hasattr(what, "u"):
        return replace(what, u=lambda progress: float(progress >= 0.5))
    if hasattr(what, "tau"):
        return replace(what, tau=lambda progress: 1.0 + (progress >= 0.5))
    return replace(what, start=0.5) if hasattr(what, "start") else None


@of_kinds
@each
def test_an_edit_that_does_not_act_changes_nothing(cls, kind):
    call, now = called(kind)
    what = in_the_second_half(example(cls))
    if what is None:
        assert example(cls).acts(0.0)
        return
    acting = [what.acts(index / 9) for index in range(10)]
    assert acting == [False] * 5 + [True] * 5
    if (where := places(what, kind)) is None:
        return
    plan = Plan.of([On(what, where)], {call.site.name: call.site}, (0.0, 1.0))
    assert plan(call, now) is call
    if not hasattr(what, "start"):  # strength 0 is no change
        torch.testing.assert_close(output_of(what(call, now)), call.run(), rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def pipes():
    return {"sd": sd(), "sd3": sd3()}


NOISE = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def first_latents(pipes, name, images, *contexts):
    """Latents after the first of two steps without guidance: linear in the prediction."""
    kept = []

    def keep(_pipe, index, _timestep, given):
        kept.extend([given["latents"]] if index == 0 else [])
        return given

    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        run(
            name, pipes[name], [PROMPTS[image] for image in images], steps=2, guidance_scale=1.0,
            latents=NOISE[images], callback_on_step_end=keep,
        )  # fmt: skip
    return kept[0]


@pytest.mark.parametrize("name", ["sd", "sd3"])
@each
def test_every_edit_serves_both_verbs(pipes, cls, name):
    """perturb is e + w (e - e under edit); a picture does not depend on the others of its batch."""
    what, everyone = example(cls), [0, 1, 2]
    kinds = [kind for kind in ("self", "cross", "joint") if (kind == "joint") == (name == "sd3")]
    kinds = [kind for kind in kinds if places(what, kind) is not None]
    if not kinds:  # of joint attention alone
        return
    where = Where(kind=tuple(kinds))
    plain = first_latents(pipes, name, everyone)
    edited = first_latents(pipes, name, everyone, edit(pipes[name], what, where=where))
    assert edited.dtype == torch.float64
    assert edited.isfinite().all()
    assert (edited - plain).abs().max() > 1e-5
    if not what.texts:  # a weakened pass has none
        weakened = perturb(pipes[name], what, scale=1.7, where=where)
        guided = first_latents(pipes, name, everyone, weakened)
        torch.testing.assert_close(guided, plain + 1.7 * (plain - edited), rtol=0, atol=1e-10)
    if what.source is None:
        alone = first_latents(pipes, name, [1], edit(pipes[name], what, where=where))
        torch.testing.assert_close(alone[0], edited[1], rtol=0, atol=1e-10)
    else:
        assert torch.equal(edited[what.source], plain[what.source])
