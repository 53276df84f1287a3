"""What a file of a job may hold, as a JSON schema for editors: ``attncontrol batch --schema``.

It describes YAML and, as its entries, the lines of JSON; ``read_job`` checks all that it says and
what a schema cannot.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from attncontrol.batch.method_names import known
from attncontrol.batch.settings import (
    Box,
    Exact,
    Fraction,
    Head,
    Pixels,
    Scale,
    Seed,
    Share,
    Step,
    Text,
    Words,
)
from attncontrol.jobs.item import Adapter, Dtype

Boxes = dict[Text, Box] | Text
Several = Annotated[list[Seed | Text], Field(min_length=1)]
_PARAMETERS: dict[str, Any] = {"patternProperties": {r"^parameters\..": {}}}


class Entry(Exact):
    """One picture, or many that differ in seeds, prompts and what a matrix varies. What is not
    given, or null, is that of the model or the method."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=_PARAMETERS)

    prompt: Text | None = None
    """What the picture shall show."""
    prompts: Annotated[list[Text], Field(min_length=1)] | None = None
    """Several prompts: a picture of each."""
    seed: Seed | None = None
    """Of the noise from which it is made. Default: 0."""
    seeds: Seed | Text | Several | None = None
    """Several seeds: "0-3,8" or [0, 1, 2, 3, 8]."""
    matrix: dict[Text, Annotated[list[Any], Field(min_length=1)]] | None = None
    """Fields and lists of their values; pictures of all that they combine to."""
    model: Text | None = None
    """A bundled model, a local folder or a hub id. Default: sprites."""
    method: Text | None = None
    """plain; a loss that steers; an edit of source, with a strength p2p@0.5, several layout+blend,
    steered p2p+auto; or module:Name. Default: plain, or what regions, remove or move say."""
    words: list[Words | Text] | Text | None = None
    """What the loss is about: "red+cat,frog" or [[red, cat], [frog]]. Default: the nouns."""
    boxes: Boxes | None = None
    """Where words shall be, for losses of a layout: "cat=0,0.2,0.5,1 frog=0.5,0,1,1" or {cat:
    [left, top, right, bottom]}, in fractions of the picture."""
    source: Text | None = None
    """The prompt of the picture that an edit takes from. It is made too."""
    regions: Boxes | None = None
    """Texts for parts of the picture, written as boxes are."""
    remove: Text | None = None
    """A word of source: what shows it is removed."""
    move: tuple[Text, Step, Step] | Text | None = None
    """A word of source, and how far to the right and down it moves: "cat=0.3,0"."""
    step_size: Annotated[float, Field(ge=0)] | Share | None = None
    """Of the loss: a number, or a share such as 6%."""
    parameters: dict[Text, Any] | None = None
    """Fields of the loss by their names, those of its descent behind "descent."; each can stand as
    a field parameters.NAME too."""
    heads: Annotated[list[Head], Field(min_length=1)] | Text | None = None
    """Heads to weaken: a file of heads search, or [[site, number]]."""
    heads_scale: Scale | None = None
    """With heads: w in e + w (e - e_weakened). Default: 3."""
    u: Fraction | None = None
    """With heads: how much they are weakened. Default: 1."""
    negative: Annotated[str, Field(max_length=10_000)] | None = None
    """What the picture shall not show."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Of the sampler."""
    guidance: Scale | None = None
    """The scale of classifier-free guidance."""
    height: Pixels | None = None
    """In pixels."""
    width: Pixels | None = None
    """In pixels."""
    dtype: Dtype | None = None
    """float32, float16 or bfloat16. Default: float32."""
    lora: list[Adapter | Text] | Adapter | Text | None = None
    """Adapters: "style.safetensors=0.8" or [{path: style.safetensors, scale: 0.8}]."""
    record: Words | Text | None = None
    """Words whose attention is kept: "cat,frog" or [cat, frog]."""


class Sheet(Exact):
    """Entries, and what all of them say unless they say otherwise."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    defaults: Entry | None = None
    """Fields of all entries."""
    items: list[Entry]
    """The entries."""


def schema() -> dict[str, Any]:
    """Of a file ``.yaml``; that of a line of ``.jsonl`` is ``#/$defs/Entry``."""
    found = TypeAdapter(Sheet | list[Entry]).json_schema()
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "attncontrol batch",
    }
    found["$defs"]["Entry"]["properties"]["method"]["examples"] = list(known())
    return about | found
