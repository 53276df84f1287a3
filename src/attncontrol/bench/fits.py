"""What the verdicts of ``attncontrol check`` are worth: ``python -m attncontrol.bench.fits --out
DIR``; prints a table.

A case is a prompt on a bundled model with three seeds, drawn plain and with a step that fits it
times 0.1, 1 and 10: 0.3, 3 and 30 % on the transformers, 0.06, 0.6 and 6 on the UNet, where a step
as in the papers is tested. Case k takes the models in turn, after each round the next method,
prompt 97 k of the 276 of its suite and seeds from 2000 + 3 k on; none of these prompts and seeds
was used to choose the limits. Beside the verdict stands what the scorer sees, which no verdict has:
in which share of the pictures all nouns are shown, and in their colours.

One line per case and factor is appended to a file; an interrupted run goes on.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from rich.console import Console
from rich.progress import track

from attncontrol import losses
from attncontrol.batch.options import load_pipeline, quiet
from attncontrol.batch.results import append_lines, read_lines, same_settings
from attncontrol.batch.setting_check import Drawn, compare, draw, still
from attncontrol.batch.verdicts import Verdict
from attncontrol.bench.prompts import groups_of, things_of
from attncontrol.bench.rates import wilson
from attncontrol.bench.tasks import tasks
from attncontrol.objectives.descent import USUAL, Descent, Relative
from attncontrol.sprites import models
from attncontrol.sprites.scenes import Thing
from attncontrol.sprites.scorer import detect, shows

FACTORS = (0.1, 1.0, 10.0)
METHODS = (
    ("auto", "colors"),
    ("attend-and-excite", "pairs"),
    ("auto", "pairs"),
    ("syngen", "colors"),
)
"""With the suite that each has something to do in."""
SEEN = ("present", "bound")
EXPECTED = {0.1: ("does nothing", "too little"), 1.0: ("fits",), 10.0: ("too much",)}
"""The verdicts that are right, by what the step was multiplied with."""


@dataclass(frozen=True)
class Case:
    number: int
    model: str
    method: str
    suite: str

    @property
    def prompt(self) -> str:
        return tasks(self.suite)[97 * self.number % 276].prompt

    @property
    def seeds(self) -> list[int]:
        return [2000 + 3 * self.number + k for k in range(3)]


def cases(count: int) -> list[Case]:
    """Of every four cases one on each model, of every sixteen each method on each."""
    names = list(models.MODELS)
    return [Case(k, names[k % 4], *METHODS[k // 4 % 4]) for k in range(count)]


def step(descent: Descent, model: str, factor: float) -> Descent:
    """One that fits a bundled model, times a factor."""
    usual = 0.6 * factor if model == "sprites" else Relative(USUAL.share * factor)
    return replace(descent, step_size=usual)


def rows(pipe: Any, case: Case) -> Iterator[dict[str, Any]]:
    """What a case has shown, by factor."""
    objective = losses.method(case.method, groups_of([case.prompt]))
    call = {"prompt": case.prompt, "seeds": case.seeds, **models.call(case.model)}
    usual = step(objective.descent, case.model, 1.0)
    plain = draw(pipe, *still(objective, usual), **call)
    before = shown(case.prompt, plain)
    for factor in FACTORS:
        guided = draw(pipe, objective, step(objective.descent, case.model, factor), **call)
        found = compare(plain, guided)
        told = {name: getattr(case, name) for name in ("number", "model", "method", "prompt")}
        yield told | {
            "factor": factor,
            "verdict": found.verdict,
            "verdicts": [seed.verdict for seed in found.seeds],
            "peaks": [seed.peak for seed in found.seeds],
            "falls": [seed.fall for seed in found.seeds],
            "left": [seed.left for seed in found.seeds],
            "plain": before,
            "guided": shown(case.prompt, guided),
        }


def shown(prompt: str, drawn: Sequence[Drawn]) -> dict[str, float]:
    """Shares of pictures with all nouns, and with all in their colours."""
    things, found = things_of(prompt), detect([each.image for each in drawn])
    present = [all(shows(each, Thing(thing.noun)) for thing in things) for each in found]
    bound = [all(shows(each, thing) for thing in things) for each in found]
    return {"present": sum(present) / len(found), "bound": sum(bound) / len(found)}


def run(count: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of all cases; those that the folder has are not made again."""
    file = folder / "cases.jsonl"
    same_settings(folder / "settings.json", {"factors": FACTORS, "methods": METHODS}, of=file)
    known = list(read_lines(file))
    done = {row["number"] for row in known if row["factor"] == FACTORS[-1]}
    left = [case for case in cases(count) if case.number not in done]
    pipes: dict[str, Any] = {}
    for case in track(left, "cases", console=Console(stderr=True)):
        if case.model not in pipes:
            pipes[case.model] = load_pipeline(case.model)
            pipes[case.model].set_progress_bar_config(disable=True)
        append_lines(file, list(rows(pipes[case.model], case)))
    return [row for row in read_lines(file) if row["number"] < count]


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: how often every verdict was given, and what the scorer sees, for all cases, and for
    those of each model and each method."""
    verdicts = get_args(Verdict)
    heads = ["cases", "step", "as expected", *verdicts, *(f"{n}, plain -> guided" for n in SEEN)]
    lines = [heads, ["---"] * len(heads)]
    groups = {"all": found}
    for key in ("model", "method"):
        for name in dict.fromkeys(row[key] for row in found):
            groups[name] = [row for row in found if row[key] == name]
    for name, rows_of in groups.items():
        for factor in FACTORS:
            chosen = [row for row in rows_of if row["factor"] == factor]
            lines.append([f"{name} ({len(chosen)})", f"x {factor:g}", *_cells(chosen, factor)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(chosen: Sequence[dict[str, Any]], factor: float) -> list[str]:
    given = [row["verdict"] for row in chosen]
    right = sum(verdict in EXPECTED[factor] for verdict in given)
    low, high = wilson(right, len(given))
    rate = f"{100 * right / len(given):.0f} % ({100 * low:.0f} to {100 * high:.0f})"
    counts = [str(given.count(verdict)) for verdict in get_args(Verdict)]
    means = [[100 * fmean(row[arm][n] for row in chosen) for arm in ("plain", "guided")]
             for n in SEEN]  # fmt: skip
    return [rate, *counts, *(f"{plain:.0f} -> {guided:.0f} %" for plain, guided in means)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    quiet()
    print(table(run(args.cases, args.out)))


if __name__ == "__main__":
    main()
