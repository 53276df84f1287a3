"""From what a form says to the pictures that are made: without gradio."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from attncontrol.app.parsed import groups, words_of
from attncontrol.batch.edit_choice import chosen
from attncontrol.batch.edit_names import AUTO
from attncontrol.batch.method_names import PLAIN, names
from attncontrol.batch.options import parse_seeds
from attncontrol.batch.short_forms import Box, parse_box
from attncontrol.errors import SettingError, WordError
from attncontrol.families.known import family_of
from attncontrol.jobs.files import read_entry
from attncontrol.jobs.item import Item

T = TypeVar("T")
MOST_SEEDS = 16
"""More pictures than a page shows well."""
SOURCE, UNEDITED, TO = "source", "same seed, new prompt", "to"


@dataclass(frozen=True)
class Settings:
    """What both forms have, as it is typed; what is empty is that of the model."""

    model: str = "sprites"
    device: str = "cpu"
    dtype: str = "float32"
    seeds: str = "0"
    steps: str = ""
    guidance: str = ""
    negative: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """Of an entry of a job. Raises SettingError."""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "steps": _number("steps", self.steps, int),
            "guidance": _number("guidance scale", self.guidance, float),
            "negative": self.negative.strip() or None,
        }

    @property
    def numbers(self) -> list[int]:
        """The seeds. Raises SettingError."""
        seeds = parse_seeds(self.seeds)
        if len(seeds) > MOST_SEEDS:
            raise SettingError(
                f"{len(seeds)} seeds: a page shows at most {MOST_SEEDS}; more are made by "
                "attncontrol generate, edit and batch"
            )
        return seeds


@dataclass(frozen=True)
class Asked:
    """``arms`` are what is made of every seed, side by side: their items, seed by seed; the last is
    guided or edited. ``words`` are those whose maps are shown; ``note`` says which method was
    chosen, and why."""

    settings: Settings
    arms: Mapping[str, tuple[Item, ...]]
    words: tuple[str, ...]
    note: str = ""

    @property
    def seeds(self) -> list[int]:
        return [item.seed for item in self.last]

    @property
    def last(self) -> tuple[Item, ...]:
        return list(self.arms.values())[-1]

    @property
    def items(self) -> list[Item]:
        """Seed by seed."""
        return [item for of_seed in zip(*self.arms.values(), strict=True) for item in of_seed]


def guided(
    settings: Settings, prompt: str, method: str, words: Sequence[str], boxes: str, step_size: str
) -> Asked:
    """Plain and guided pictures of the same seeds; ``words`` as "red+cat", ``boxes`` a line for
    each, "cat=0,0,0.5,1". Raises what says what is wrong."""
    common = settings.fields | {"prompt": _required(prompt, "prompt")}
    own: dict[str, Any] = {"method": method, "step_size": step_size.strip() or None}
    if method in names("layout"):
        own["boxes"] = layout(boxes, "boxes", "say where a word shall be")
        shown = list(own["boxes"])
    else:
        shown = words_of(prompt, words)
        own["words"] = groups(prompt, words)
    arms = {PLAIN: common} | ({} if method == PLAIN else {method: common | own})
    made = {arm: _items(fields | {"record": shown}, settings) for arm, fields in arms.items()}
    return Asked(settings, made, tuple(shown))


def edited(settings: Settings, pipe: Any, prompt: str, kind: str, to: str, **change: Any) -> Asked:
    """Sources, the new prompt from the same seed, and what is edited. ``kind`` is "to" with
    ``method``, "remove" with ``word``, "move" with ``word``, ``right`` and ``down``, or "regions"
    with lines of them. Raises what says what is wrong."""
    source, note, common = _required(prompt, "prompt"), "", settings.fields
    own: dict[str, Any] = {"source": source, "prompt": to.strip() or None, "method": kind}
    if kind == "remove":
        own["remove"] = _required(change["word"], "word")
    elif kind == "move":
        own["move"] = [_required(change["word"], "word"), change["right"], change["down"]]
    elif kind == "regions":
        own["regions"] = layout(change["regions"], kind, "say what a part of the picture shows")
        own["prompt"] = own["prompt"] or source
    else:
        own["prompt"] = _required(to, "second prompt")
        own["method"], note = _method(change["method"], source, own["prompt"], pipe)
    first = _items(common | own, settings)[0]
    texts = dict.fromkeys([source, first.prompt])
    words = {text: _known(text) for text in texts}
    both = list(dict.fromkeys(word for some in words.values() for word in some))
    made = _items(common | own | {"record": both or None}, settings)
    arms = {SOURCE: tuple(item.original for item in made)}
    if first.prompt != source:
        plain = {"prompt": first.prompt, "record": words[first.prompt] or None}
        arms[UNEDITED] = _items(common | plain, settings)
    return Asked(settings, arms | {first.method: made}, tuple(both), note)


def layout(text: str, name: str, hint: str) -> dict[str, Box]:
    """Boxes of lines. Raises SettingError, also where there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise SettingError(
            f"{name}: there is none; {hint}: draw a box, or write word=left,top,right,bottom"
        )
    pairs = [parse_box(line) for line in lines]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise SettingError(f"{name}: a word is there twice; leave one of its lines out")
    return found


def _number(name: str, text: str, kind: Callable[[str], T]) -> T | None:
    try:
        return kind(text) if text.strip() else None
    except ValueError:
        raise SettingError(f"{name}: {text.strip()!r} is no number") from None


def _items(fields: Mapping[str, Any], settings: Settings) -> tuple[Item, ...]:
    return tuple(read_entry({**fields, "seed": seed}) for seed in settings.numbers)


def _required(text: str | None, name: str) -> str:
    if text is None or not text.strip():
        raise SettingError(f"the {name} is empty: write one")
    return text.strip()


def _known(prompt: str) -> list[str]:
    """Words whose maps are shown; none of a prompt without a noun."""
    try:
        return words_of(prompt, ())
    except WordError:
        return []


def _method(name: str, prompt: str, to: str, pipe: Any) -> tuple[str, str]:
    """That which ``auto`` stands for, and why."""
    return chosen(prompt, to, pipe, family_of(pipe)) if name == AUTO else (name, "")
