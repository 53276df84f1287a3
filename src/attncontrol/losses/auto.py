"""The recommended objective: of each image the losses that were measured best for its prompt.

    B = SynGen(entities=True)      where a noun of the prompt has a modifier
    B = EBAMA                      where none has
    L = B                          where no subjects stand side by side
    L = B / 2 + 5 * Apart          where some do, each group of them kept apart

Side by side: "and", "or", "plus", "beside", "near", "next to" or a comma between them, and no word
that puts one at the other: "a cat and a frog", not "a lion with a crown", "a frog and its hat". A
gradient step in each step of the first half of the run, no refinement.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.losses.apart import apart
from attncontrol.losses.ebama import ebama
from attncontrol.losses.syngen import syngen
from attncontrol.maps.step import StepMaps, words_outside
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.tokens import Subject, Token
from attncontrol.prompts.words import Groups

_BESIDE = re.compile(r"\b(?:and|or|plus|beside|near|next to)\b|[,;&+]")
_TOGETHER = re.compile(
    r"\b(?:with|in|on|of|at|from|inside|into|onto|atop|under|over|behind|through|has|have|having"
    r"|its|his|her|their|(?:wear|hold|eat)(?:s|ing)?|carries|carrying|rides?|riding)\b"
)


def side_by_side(
    prompt: str, tokens: Sequence[Token], subjects: Sequence[Subject]
) -> list[list[Subject]]:
    """The groups of two and more subjects that stand side by side, in the order of the prompt."""

    def characters(subject: Subject) -> tuple[int, int]:
        own = [tokens[k] for k in subject.positions]
        return min(token.start for token in own), max(token.end for token in own)

    groups, end = list[list[Subject]](), 0
    for subject in sorted(subjects, key=characters):
        start, after = characters(subject)
        between = prompt[end:start].lower()
        if not (groups and _BESIDE.search(between) and not _TOGETHER.search(between)):
            groups.append([])
        groups[-1].append(subject)
        end = max(end, after)
    return [group for group in groups if len(group) > 1]


@dataclass(frozen=True)
class Auto(Objective):
    """Objective for ``steer``. ``words`` None: the nouns and their modifiers, by the parse."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        losses = []
        each = zip(maps.mean(), maps.subjects, words_outside(maps), maps.contrast, strict=True)
        for i, (mean, subjects, outside, contrast) in enumerate(each):
            if any(subject.modifiers for subject in subjects):
                loss = syngen(mean, subjects, outside, entities=True)
            else:
                loss = ebama(mean, subjects, outside, contrast)
            if groups := side_by_side(maps.prompts[i] or "", maps.tokens[i], subjects):
                layers = [layer[i] for layer in maps.layers.values()]
                loss = loss / 2 + 5 * sum(apart(layers, mean, group) for group in groups)
            losses.append(loss)
        return torch.stack(losses)


def example() -> Auto:
    """For the prompt "a red cat and a frog"."""
    return Auto(words=[["red", "cat"], "frog"])
