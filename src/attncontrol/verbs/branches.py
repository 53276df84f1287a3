"""The token axes of a recording: each branch has its own text."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.between import Direction
from attncontrol.maps.recording import BranchText
from attncontrol.prompts.text import Text
from attncontrol.prompts.words import Words


def texts_of(
    text: Text, branches: Sequence[str], words: Words | None, direction: Direction
) -> dict[str, BranchText]:
    """What these branches read, and what their token axes hold. Raises WordError."""
    images, found = range(len(text.prompts)), []
    if direction != "image->image" or words is not None:  # a wrong word is an error
        found = text.spans_of(branches, words)
    if direction == "image->image":
        found = [((),) * len(images)] * len(branches)
    return {
        branch: BranchText(
            tuple(prompt or "" for prompt in text.of(branch).prompts),
            tuple(text.of(branch).known(image) for image in images),
            spans,
        )
        for branch, spans in zip(branches, found, strict=True)
    }


def filled(maps: Tensor, tokens: int, direction: Direction) -> Tensor:
    """Maps [... token] with zeros up to the length of the longest branch."""
    if direction == "image->image":
        return maps
    more = tokens - maps.shape[-1]
    return F.pad(maps, (0, more, 0, more if direction == "text->text" else 0))


def without_absent(maps: Tensor, texts: Sequence[BranchText], direction: Direction) -> Tensor:
    """Maps [image branch ... token], NaN for words that a text does not have."""
    for branch, text in enumerate(texts):
        for image, spans in enumerate(text.spans):
            absent = [k for k, span in enumerate(spans) if not span.positions]
            maps[image, branch, ..., absent] = torch.nan
            if direction == "text->text":
                maps[image, branch, ..., absent, :] = torch.nan
    return maps
