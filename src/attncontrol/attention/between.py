"""Attention from one part of the sequence to another, in the shape of a recording."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.errors import ModelError, SettingError, SiteError, WordError

Direction = Literal["image->text", "text->image", "image->image", "text->text"]
"""From the queries to the keys, whose probabilities sum to 1."""

Groups = Sequence[Sequence[Sequence[int]]]
"""For every row of the batch, groups of text positions."""

KINDS = {
    "image->text": Where(kind=("cross", "joint")),
    "text->image": Where(kind="joint"),
    "text->text": Where(kind="joint"),
    "image->image": Where(kind=("self", "joint")),
}
"""Where each direction exists."""


def sites_with(known: Sequence[Site], direction: Direction, where: Where | None) -> dict[str, Site]:
    """The sites of ``where``, or all that have the direction, by name. Raises SiteError if one has
    no such queries or keys."""
    if direction not in KINDS:
        raise SettingError(f"direction={direction!r}: choose from {', '.join(KINDS)}")
    sites = (where or KINDS[direction]).select(known)
    kinds = KINDS[direction].kind or ()
    if wrong := [site for site in sites if site.kind not in kinds]:
        raise SiteError(
            f"{wrong[0].name} is {wrong[0].kind}-attention, which has no {direction}; that exists "
            f"at sites of kind {kinds}: leave where=... out, or give a narrower one"
        )
    return {site.name: site for site in sites}


def related(call: AttentionCall, layout: Layout, groups: Groups, direction: Direction) -> Tensor:
    """Probabilities [batch heads *grid token] of one call, over all its keys.

    A group without positions is 0.

    image->text: how much each cell attends to each group (sum over its positions). text->image: how
    much each group (mean over its positions) attends to each cell. text->text: the grid is (1,
    querying group), the token axis the groups attended to. image->image: the token axis is all
    cells, row by row. Rows of the batch with fewer groups than others are filled with zeros.
    """
    if direction == "image->text":
        return text_mass(call, layout, groups)
    if direction == "image->image":
        return torch.stack(
            [_cells_to_cells(call, layout, slice(b, b + 1)) for b in range(len(call.query))]
        )
    most, rows = max(map(len, groups)), []
    for b, of_row in enumerate(groups):
        row = slice(b, b + 1)
        keys = torch.arange(call.key.shape[2], device=call.key.device)[layout.text]
        require_positions(of_row, len(keys))
        marks = torch.zeros(len(of_row), len(keys), device=call.key.device)
        for g, positions in enumerate(of_row):
            marks[g, list(positions)] = 1
        wanted = marks.any(0).nonzero()[:, 0]
        probabilities = (
            call.rows(row).of_queries(keys[wanted]).probabilities()[0]
        )  # heads wanted key
        marks = marks.to(probabilities)
        of_groups = torch.einsum(
            "gw,hwk->hgk",
            (marks / marks.sum(1, keepdim=True).clamp(min=1))[:, wanted],
            probabilities,
        )
        more = most - len(of_row)
        if direction == "text->text":
            rows.append(F.pad(of_groups[..., keys] @ marks.T, (0, more, 0, more))[:, None])
        else:
            cells = of_groups[..., _image(layout.rows(row))]
            rows.append(F.pad(cells.transpose(1, 2).unflatten(1, layout.grid), (0, more)))
    return torch.stack(rows)


def require_positions(groups: Sequence[Sequence[int]], size: int) -> None:
    """Raises WordError where there is no such text position."""
    wrong = [position for of in groups for position in of if not 0 <= position < size]
    if wrong:
        raise WordError(f"position {wrong[0]} does not exist: the text has {size}, 0 to {size - 1}")


def _cells_to_cells(call: AttentionCall, layout: Layout, row: slice) -> Tensor:
    """[heads *grid cell]"""
    image = _image(layout.rows(row))
    among = call.rows(row).of_queries(image).probabilities()[0, :, :, image]
    if among.shape[1] != math.prod(layout.grid):
        raise SiteError(
            f"{call.site.name} has {among.shape[1]} positions, which are not the {layout.grid} "
            "cells of the picture alone: choose others, such as "
            "where=Where(kind='self', layers=('*.attn1',))"
        )
    return among.unflatten(1, layout.grid)


def _image(layout: Layout) -> slice:
    """Of a single row."""
    return layout.image if isinstance(layout.image, slice) else layout.image[0]


def text_mass(
    call: AttentionCall, layout: Layout, groups: Sequence[Sequence[Sequence[int]]]
) -> Tensor:
    """[batch heads *grid group]: how much every picture token attends to each group of text
    positions.

    ``groups[b]`` are the groups of row b; rows with fewer groups than others are filled with zeros.
    """
    keys = torch.arange(call.key.shape[2], device=call.key.device)[layout.text]
    columns = torch.zeros(
        len(groups), call.key.shape[2], max(map(len, groups)), device=call.key.device
    )
    for row, of_row in enumerate(groups):
        require_positions(of_row, len(keys))
        for column, positions in enumerate(of_row):
            columns[row, keys[list(positions)], column] = 1
    image = layout.image
    if isinstance(image, tuple):
        query = torch.stack([q[:, of] for q, of in zip(call.query, image, strict=True)])
        call, image = replace(call, query=query, normaliser=None), slice(None)
    mass = call.mass(columns, image)
    if mass.shape[2] != math.prod(layout.grid):
        raise ModelError(
            f"{call.site.name} has {mass.shape[2]} picture queries, but a grid of {layout.grid} "
            "was expected; describe this model with attncontrol.families.Family"
        )
    return mass.unflatten(2, layout.grid)
