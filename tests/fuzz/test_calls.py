"""Python calls with odd arguments: a finite result, or one error of this package that says what to
do; the pipeline is as before, whatever happened."""

import inspect
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attncontrol import edits, losses
from attncontrol.analysis.concept_attention import concept_attention
from attncontrol.analysis.head_statistics import importance
from attncontrol.analysis.relevance import relevance_of_picture
from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import Where
from attncontrol.errors import AttnControlError
from attncontrol.losses import AttendAndExcite, SynGen
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.noise_search import NoiseSearch
from attncontrol.verbs.edit import edit
from attncontrol.verbs.locate import locate
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.picture import record_picture
from attncontrol.verbs.places import On, PerImage
from attncontrol.verbs.record import estimate_bytes, record
from attncontrol.verbs.steer import steer
from tests.fuzz import budget
from tests.kit.state import changes, left_behind, state
from tests.kit.tiny import tiny_sd

PROMPT = "a red cat and a frog"
BOXES = {"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)}
SELF, TEXT = Where("self", layers=("mid_block",)), Where("cross", layers=("mid_block",))
HEADS = [("mid_block.attentions.0.transformer_blocks.0.attn1", 1)]
PHOTO = np.zeros((32, 32, 3), np.uint8)


def function(maps):
    return maps.mean().flatten(1).mean(1)


NUMBERS = [0, 1, -1, 2, 0.5, 1.0, -0.5, math.nan, math.inf, -math.inf, 10**30, 1e300, True, 1j]
NAMES = ["", "x", "cat", "cat#0", "#", "cond", "step", "image->image", "int8", b"cat", "\0", "🐸"]
THINGS = [
    None, object(), function, SynGen, SynGen(), edits.SoftIdentity(), SELF, TEXT,
    Descent(), Path("x"), slice(2), range(3), np.zeros(2), np.float32(0.5), np.array(math.nan),
    torch.tensor(0.5), torch.zeros(2, 2), torch.ones(4, 4), torch.full((2,), math.nan),
    On(edits.SoftIdentity(), SELF), PerImage((HEADS,)), HEADS, BOXES, PHOTO, lambda *_: math.nan,
    lambda *_: "x", lambda *_: None, Where(layers=("nowhere",)),
]  # fmt: skip
leaves = st.sampled_from([*NUMBERS, *NAMES, *THINGS]) | st.floats() | st.integers() | st.text()
ODD = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(
            st.sampled_from(["cat", "frog", PROMPT, "", 1, None, 0.5]), inner, max_size=2
        ),
        st.lists(st.sampled_from(["cat", "frog", "red", 1, math.nan]), max_size=2).map(set),
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def pipe():
    pipe = tiny_sd()
    short_run(pipe)  # pipelines keep settings of their last call
    return pipe


def short_run(pipe):
    generator = torch.Generator().manual_seed(0)
    call = {"height": 64, "width": 64, "num_inference_steps": 2, "guidance_scale": 2.0}
    return pipe(PROMPT, generator=generator, output_type="latent", **call).images


def running(context):
    """Calls the pipeline inside a context."""

    def run(pipe, **arguments):
        with context(pipe, **arguments) as given:
            pictures = short_run(pipe)
        assert pictures.isfinite().all()
        return given

    return run


def steered(cls):
    """With an objective of a class."""

    def run(pipe, **arguments):
        return running(steer)(pipe, objective=cls(**arguments), where=TEXT)

    return run


def edited(cls):
    def run(pipe, **arguments):
        what = cls(**arguments)
        if beyond_attention(what):
            return running(edit)(pipe, edit=what)
        places = SELF if isinstance(what, edits.SkipLayers) or what.where is None else what.where
        scale = {"scale": 1.5, "steps": (0.0, 1.0)}
        return running(perturb)(
            pipe, edit=what, where=None if cls is edits.SkipLayers else places, **scale
        )

    return run


def beyond_attention(what):
    """Whether ``perturb`` cannot have it."""
    modules = getattr(what, "modules", ()) or getattr(what, "texts", ())
    return modules or (isinstance(what, Edit) and type(what).stepped is not Edit.stepped)


def described(cls):
    def run(pipe, **arguments):
        made = cls(**arguments)
        if cls is Where:
            return running(record)(pipe, where=made)
        if cls is Descent:
            return running(steer)(
                pipe, objective=AttendAndExcite(["cat"]), where=TEXT, descent=made
            )
        if cls is NoiseSearch:
            return made.run(
                lambda images, change: (change.flatten(1).mean(1)[images], change[images]),
                torch.ones(1, 2, 2),
            )
        return running(edit)(
            pipe, edit=[made if cls is On else On(edits.SoftUniform(), heads=made)]
        )

    return run


VALID = {
    "words": [["red", "cat"], "frog"], "layout": BOXES, "temperature": 0.5,
    "descent": Descent(thresholds={}),
    "centers": {"cat": (0.2, 0.5)}, "sizes": {"frog": 0.1}, "moves": {"cat": (0.2, 0.0)},
    "scales": {"frog": 1.5}, "shapes": ["cat"], "appearances": ["cat"], "tau": 0.5,
    "layers": ("mid_block.attentions.0",), "factors": {"cat": 2.0}, "region": (0.0, 0.0, 0.5, 1.0),
}  # fmt: skip


OWN = {
    "Replace": {"words": {}}, "KeyMask": {"words": ["cat"]}, "LocalBlend": {"words": ["cat"]},
    "MutualAttention": {"words": ()}, "BoundedAttention": {"regions": BOXES},
    "DenseDiffusion": {"regions": BOXES}, "Redistribute": {"share": 0.5},
    "Regions": {"regions": {"a red cat": BOXES["cat"]}}, "Move": {"by": (0.3, 0.0)},
    "GRAG": {"delta": 1.5}, "AddIt": {"subject": "cat"},
    "OmissionSignal": {"directions": {"mid": torch.zeros(2, 4)}, "words": ["cat"]},
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:.*changed nothing")  # its source is all
# of transformers, of GLIGEN, of larger UNets
NEED_MORE = ("concept_attention", "loss Rearrange", "loss InitNO", *(
    f"edit {name}" for name in ("AddIt", "AdapterRegion", "GRAG", "OmissionSignal", "PlugAndPlay",
                                "ReGround", "TACA")
))  # fmt: skip


def fields_of(cls):
    """Arguments of a class, with a right value for each."""
    parameters = inspect.signature(cls).parameters.values()
    right = VALID | OWN.get(cls.__name__, {})
    return {p.name: right.get(p.name, p.default) for p in parameters}


def parameters_of(call, **given):
    names = {**inspect.signature(call).parameters}
    defaults = {n: p.default for n, p in names.items() if p.default is not p.empty}
    return {n: v for n, v in (defaults | given).items() if n != "pipe"}


CONTEXTS = {
    "record": (running(record), parameters_of(record, words=["cat"], where=TEXT)),
    "steer": (running(steer), parameters_of(steer, objective=AttendAndExcite(["cat"]), where=TEXT)),
    "perturb": (
        running(perturb),
        parameters_of(perturb, edit=edits.SoftIdentity(), scale=1.5, where=SELF),
    ),
    "edit": (running(edit), parameters_of(edit, edit=edits.SoftUniform(), where=SELF)),
    "concept_attention": (
        concept_attention,
        parameters_of(concept_attention, concepts=["cat"]),
    ),
}  # fmt: skip
CLASSES = (
    {
        f"loss {n}": (steered(cls), fields_of(cls))
        for n in losses.__all__
        if inspect.isclass(cls := getattr(losses, n))
    }
    | {
        f"edit {n}": (edited(cls), fields_of(cls))
        for n in edits.__all__
        for cls in [getattr(edits, n)]
    }
    | {
        "Descent": (
            described(Descent),
            parameters_of(Descent, step_size=1.0, thresholds={0.5: 0.5}),
        )
    }
    | {
        "NoiseSearch": (
            described(NoiseSearch),
            parameters_of(NoiseSearch, objective=function, target=0.5, rounds=1, steps=2, last=1),
        )
    }
    | {"Where": (described(Where), parameters_of(Where, kind="cross"))}
    | {"On": (described(On), parameters_of(On, edit=edits.SoftUniform(), where=SELF))}
    | {"PerImage": (described(PerImage), {"heads": (HEADS,)})}
)
FUNCTIONS = {
    "locate": (locate, {"prompt": PROMPT, "phrase": "cat"}),
    "estimate_bytes": (
        estimate_bytes, parameters_of(estimate_bytes, words=1, height=32, width=32, steps=2)
    ),
    "record_picture": (record_picture, {
        "picture": PHOTO, "prompt": PROMPT, "words": ["cat"], "timestep": 300.0, "seed": 0,
        "size": None, "where": None, "direction": "image->text", "keep": (),
    }),
    "relevance_of_picture": (relevance_of_picture, {
        "picture": PHOTO, "prompt": PROMPT, "words": ["cat"], "timestep": 300.0, "where": TEXT,
    }),
    "importance": (importance, {
        "picture": PHOTO, "prompt": PROMPT, "heads": HEADS, "timestep": 300.0,
    }),
}  # fmt: skip
CALLS = {n: each for n, each in (CONTEXTS | CLASSES | FUNCTIONS).items() if each[1]}


def is_finite(value):
    """Of the tensors and numbers of a result."""
    if isinstance(value, AttentionMaps):
        return all(tensor.isfinite().all() for tensor in value.layers.values())
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    return not isinstance(value, float) or math.isfinite(value)


def outcome(pipe, call, arguments):
    """None for a right result or a clear error; else what was wrong."""
    before = state(pipe)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call(pipe, **arguments)
        wrong = None if is_finite(result) else f"accepted, with the result {result!r}"
    except AttnControlError as error:
        lines = str(error).splitlines()
        wrong = None if lines and len(lines[0]) < 1000 else f"unclear: {error!r}"
    except Exception as error:
        wrong = f"foreign: {error!r}"
    if left := changes(before, state(pipe)) or left_behind(pipe):
        wrong = f"left behind: {left}"
    return wrong


@pytest.mark.usefixtures("as_users_have_it")
@budget(60)
@given(data=st.data())
def test_odd_arguments(pipe, data):
    name = data.draw(st.sampled_from(sorted(CALLS)))
    call, valid = CALLS[name]
    odd = data.draw(st.lists(st.sampled_from(sorted(valid)), min_size=1, max_size=2, unique=True))
    arguments = valid | {key: data.draw(ODD, label=f"{name} {key}") for key in odd}
    assert outcome(pipe, call, arguments) is None


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_calls_are_right_before_they_are_made_odd(pipe, name):
    call, valid = CALLS[name]
    if name not in NEED_MORE:
        assert is_finite(call(pipe, **valid))
