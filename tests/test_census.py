"""Every pipeline of the installed diffusers that makes pictures or videos from text is in the
tables of families."""

import re

import diffusers
import pytest
from diffusers.modular_pipelines.modular_pipeline import MODULAR_PIPELINE_MAPPING

from attncontrol import record
from attncontrol.errors import ModelError
from attncontrol.families import known
from attncontrol.families.refused import REFUSED
from tests.kit import census


@pytest.fixture(scope="module")
def pipelines():
    return census.found() | census.found_videos()


def test_every_pipeline_has_a_family_or_a_reason(pipelines):
    assert len(pipelines) > 150
    unheard = [
        name
        for name, cls in pipelines.items()
        if census.family_or_reason(name, cls) == (None, None)
    ]
    assert not unheard, (
        f"{unheard} of diffusers belong to no family: describe one in attncontrol/families (its "
        "README says how) with a tiny pipeline in tests/kit, or say in tests/kit/census.py, "
        "NOT_SUPPORTED, why there is none; then run python -m tests.kit.census"
    )
    gone = {*census.NOT_SUPPORTED, *census.VIDEOS_NOT_SUPPORTED} - set(pipelines)
    assert not gone, f"{gone} are in its lists, but not in this diffusers: take them out"


def test_the_tables_are_those_of_the_readme():
    if f"Of diffusers {diffusers.__version__}:" not in census.README.read_text("utf-8"):
        pytest.skip("the README is about another version of diffusers")
    assert census.written() == census.README.read_text("utf-8"), (
        "families/README.md is not what the installed diffusers has: run "
        "python -m tests.kit.census and look at what changed"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Cosmos3OmniPipeline", "reads the prompt itself"),
        ("StableCascadeDecoderPipeline", "have no words"), ("LattePipeline", "row of its own"),
        ("KandinskyPriorPipeline", "features"),
        ("LTX2InContextPipeline", "other videos"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(name, reason):
    pipe = census.stub(getattr(diffusers, name))
    with pytest.raises(ModelError, match=f"is not supported: .*{reason}"), record(pipe, ["cat"]):
        pass
    assert {type(part).__name__ for part in pipe.components.values()} & set(REFUSED)


def test_unets_whose_picture_reads_no_text_are_refused():
    pipe = census.stub(diffusers.KandinskyV22Pipeline)
    pipe.unet._internal_dict = census.ADDED_KEYS | {"encoder_hid_dim_type": "image_proj"}
    with pytest.raises(ModelError, match="its picture reads no text"), record(pipe, ["cat"]):
        pass


def test_of_combined_pipelines_the_one_to_give_is_named(pipelines):
    pipe = census.stub(pipelines["KandinskyCombinedPipeline"])
    pipe.decoder_pipe = pipe.prior_pipe = None
    with pytest.raises(ModelError, match=r"give pipe\.decoder_pipe"), record(pipe, ["cat"]):
        pass


def test_families_of_models_that_diffusers_does_not_have_are_left_out(monkeypatch):
    def missing(name):
        raise ImportError("cannot import", name=name.rpartition(".")[2])

    assert known._described("flux").name == "flux"
    monkeypatch.setattr(known.importlib, "import_module", missing)
    assert known._described("diffusers") is None
    with pytest.raises(ImportError):  # nothing else is hidden
        known._described("torch")


def modular_table():
    """Entry of the table of modular pipelines to what is said of it."""
    section = census.README.read_text("utf-8").split("## Modular pipelines of diffusers")[1]
    rows = [line.split("|") for line in section.split("\n## ")[0].splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[1].startswith(" `")]
    return [(name, row[2].strip()) for row in rows for name in re.findall("`([^`]+)`", row[1])]


def test_every_modular_pipeline_is_in_the_table():
    if f"`MODULAR_PIPELINE_MAPPING` ({diffusers.__version__})" not in census.README.read_text(
        "utf-8"
    ):
        pytest.skip("the README is about another version of diffusers")
    assert sorted(name for name, _ in modular_table()) == sorted(MODULAR_PIPELINE_MAPPING)


@pytest.mark.parametrize("name", [n for n, said in modular_table() if said.startswith("refused")])
def test_modular_pipelines_that_are_refused_there_are(name):
    if name not in MODULAR_PIPELINE_MAPPING:
        pytest.skip("another version of diffusers")
    cls = getattr(diffusers, MODULAR_PIPELINE_MAPPING[name]())
    pipe = getattr(diffusers, cls.default_blocks_name)().init_pipeline()
    for part in pipe.blocks.expected_components:
        if part.name.startswith("transformer"):
            setattr(pipe, part.name, census.without_parts(part.type_hint))
    with pytest.raises(ModelError), record(pipe):
        pass
