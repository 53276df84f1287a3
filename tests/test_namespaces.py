"""``attncontrol.losses`` and ``attncontrol.edits`` as namespaces, and losses by their names."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attncontrol
from attncontrol import edits, listing, losses
from attncontrol.errors import LossError, SettingError
from attncontrol.losses import (
    Apart,
    AStar,
    AttendAndExcite,
    Auto,
    BoxDiff,
    Placement,
    SelfCross,
    SynGen,
    method,
    methods,
    needs,
)
from attncontrol.objectives.objective import OfFunction
from tests.kit.steps import step_maps

SOURCE = Path(attncontrol.__file__).parent
WORDS = [["red", "cat"], "frog"]
BOXES = {"cat": (0.0, 0.0, 0.5, 1.0)}


def test_public_names_are_the_namespace():
    for package in (losses, edits):
        assert dir(package) == list(package.__all__)
        assert package.__all__ == sorted(package.__all__)
        for name in package.__all__:
            assert getattr(package, name).__name__ == name
        with pytest.raises(
            AttributeError, match=f"has no 'Nowhere'; it has .*{package.__all__[0]}"
        ):
            _ = package.Nowhere
    assert {"SynGen", "AStar", "Auto", "Placement", "CONFORM"} <= set(losses.__all__)
    assert {"SoftIdentity", "SoftUniform", "SkipLayers", "Temperature"} <= set(edits.__all__)
    assert not {"fixed", "lerp", "square", "Progress", "merge"} & set(edits.__all__)


def test_star_imports_give_the_public_names():
    given = {}
    exec("from attncontrol.losses import *", given)
    assert given.keys() - {"__builtins__"} == set(losses.__all__)


@pytest.mark.parametrize("package", ["losses", "edits"])
def test_listing_imports_neither_torch_nor_a_file(package):
    """With an empty package above, which has its own imports."""
    code = f"""
import sys, types
above = types.ModuleType("attncontrol")
above.__path__ = [{str(SOURCE)!r}]
sys.modules["attncontrol"] = above
import attncontrol.{package} as package
names = package.__all__, dir(package), getattr(package, "methods", dict)()
loaded = {{name.split(".")[0] for name in sys.modules}} | {{*sys.modules}}
assert not loaded & {{"torch", "numpy", "attncontrol.losses.syngen"}}, loaded
"""
    if package == "losses":
        code += "\nassert package.methods()['boxdiff'] == 'layout'\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_new_file_is_found(tmp_path):
    (tmp_path / "brighter.py").write_text(
        "class Brighter: ...\nclass _Own: ...\ndef helper(): ...\n"
    )
    (tmp_path / "_shared.py").write_text("class Shared: ...\n")
    assert dict(listing.classes(str(tmp_path))) == {"Brighter": "brighter"}


def test_methods_are_the_files():
    of_words = [
        *("a-star", "apart", "attend-and-excite", "auto", "conform", "divide-and-bind", "ebama"),
        *("initno", "predicated", "self-cross", "syngen"),
    ]
    of_layout = [
        "attention-refocusing",
        "bounded-guidance",
        "box-self-guidance",
        "boxdiff",
        "layout-guidance",
        "partcraft",
        "placement",
    ]
    expected = dict.fromkeys(of_words, "words") | dict.fromkeys(of_layout, "layout")
    assert methods() == dict(sorted(expected.items()))
    assert {name: needs(name) for name in methods()} == methods()
    for name, need in methods().items():
        made = method(name, **{need: WORDS if need == "words" else BOXES})
        assert made.words == (WORDS if need == "words" else ["cat"])


def test_methods_make_what_they_made():
    assert method("auto") == Auto()
    assert method("syngen", WORDS) == SynGen(WORDS)
    assert method("a-star", WORDS) == AStar(WORDS)
    assert method("apart", WORDS) == 10.0 * Apart(WORDS)
    assert method("self-cross", WORDS) == AttendAndExcite(WORDS) + SelfCross(WORDS)
    assert method("boxdiff", layout=BOXES) == BoxDiff(BOXES)
    assert method("placement", layout=BOXES) == Placement(BOXES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("syngenn",), "no method is called syngenn: choose from a-star, apart, .*module:Name"),
        (("rearrange",), "no method is called rearrange: .* more than words or a layout"),
        (("boxdiff",), "method boxdiff needs a layout, .*--box"),
        (("boxdiff", WORDS, BOXES), "method boxdiff takes no words"),
        (("syngen", None, BOXES), "method syngen takes no layout"),
        (("nowhere:Loss",), "nowhere:Loss: there is no module nowhere, neither installed nor in "),
        (("json:Loss",), "json:Loss: json has no Loss; it has .*dumps"),
        (("my losses:Loss",), "is not of the form module:name"),
        ((":Loss",), "is not of the form module:name"),
        (("json:",), "is not of the form module:name"),
    ],
)
def test_methods_that_there_are_not(given, message):
    with pytest.raises(SettingError, match=message):
        method(*given)


MINE = """
from dataclasses import dataclass
from attncontrol.losses import SynGen
from attncontrol.objectives.objective import Objective, OfLayout

@dataclass(frozen=True)
class Words(Objective):
    words: object = None
    gamma: float = 2.0
    def __call__(self, maps): return maps.mean().flatten(1).sum(1)

class Boxes(OfLayout):
    def __call__(self, maps): return maps.mean().flatten(1).sum(1)

@dataclass(frozen=True)
class Plain(Objective):
    def __call__(self, maps): return maps.mean().flatten(1).sum(1)

@dataclass(frozen=True)
class More(Objective):
    gamma: float
    def __call__(self, maps): return maps.mean().flatten(1).sum(1)

def both(words): return SynGen(words) + 2.0 * Words(words)
def always(): return SynGen(["cat"])
def loss(maps): return maps.mean().flatten(1).sum(1)
ready = SynGen(["frog"])
number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(MINE)
    (tmp_path / "broken_losses.py").write_text("import nowhere_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_losses", None)


@pytest.mark.usefixtures("mine")
def test_losses_of_ones_own():
    assert method("own_losses:Words", WORDS).words == WORDS
    assert method("own_losses:Words").words is None
    assert method("own_losses:Boxes", layout=BOXES).words == ["cat"]
    assert method("own_losses:Plain").words == ()
    assert [weight for weight, _ in method("own_losses:both", WORDS).terms] == [1.0, 2.0]
    assert method("own_losses:always") == SynGen(["cat"])
    assert method("own_losses:ready") == SynGen(["frog"])
    found = method("own_losses:loss")
    assert isinstance(found, OfFunction)
    assert found.function.__name__ == "loss"
    wanted = {"Words": "words", "Boxes": "layout", "both": "words", "Plain": None, "ready": None}
    assert {name: needs(f"own_losses:{name}") for name in wanted} == wanted


@pytest.mark.usefixtures("mine")
def test_losses_of_ones_own_that_do_not_fit():
    for given, message in [
        (("own_losses:Boxes",), "own_losses:Boxes needs a layout"),
        (("own_losses:Boxes", WORDS), "takes no words"),
        (("own_losses:Words", None, BOXES), "takes no layout"),
        (("own_losses:loss", WORDS), "takes no words"),
        (("own_losses:More",), "needs more than words or a layout: give gamma a default"),
        (("own_losses:Missing",), "own_losses has no Missing; it has .*Words"),
    ]:
        with pytest.raises(SettingError, match=message):
            method(*given)
    with pytest.raises(LossError, match="3 is no objective"):
        method("own_losses:number")
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        method("broken_losses:Loss")


def test_a_method_steers_as_its_class():
    maps = torch.rand(2, 2, 3, 4, 9, generator=torch.Generator().manual_seed(0))
    of_step = step_maps(maps, WORDS)
    ((weight, term),) = method("apart", WORDS).terms
    assert torch.equal(method("apart", WORDS)(of_step), weight * term(of_step))
