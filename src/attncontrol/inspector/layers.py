"""Layers in the groups that one looks at together: all, by block, by grid, and each alone."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Grid = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class Group:
    """Layers whose mean is shown under one name; ``grid`` is the finest of theirs. ``title`` is the
    module path of a single one."""

    kind: Literal["all", "block", "grid", "layer"]
    name: str
    title: str
    layers: tuple[str, ...]
    grid: Grid


def in_order(layers: Iterable[str]) -> tuple[str, ...]:
    """As they run: a UNet names its middle last."""
    order = {"down": 0, "mid": 1, "up": 2}
    names = tuple(layers)
    blocks = block_names(names)
    return (
        tuple(sorted(names, key=lambda name: order[blocks[name]]))
        if set(blocks.values()) <= set(order)
        else names
    )


def groups(grids: Mapping[str, Grid]) -> tuple[Group, ...]:
    """All layers; every block and every grid that is not all of them; every single layer. ``grids``
    maps layers to their grids."""
    blocks, names = block_names(tuple(grids)), short_names(tuple(grids))
    by_block = {
        block: tuple(name for name in grids if blocks[name] == block)
        for block in dict.fromkeys(blocks.values())
    }
    sizes = sorted(set(grids.values()), reverse=True)
    by_grid = {
        f"{h} \u00d7 {w} cells": tuple(name for name in grids if grids[name] == (h, w))
        for h, w in sizes
    }
    found = [_group("all", "all layers", tuple(grids), grids)] if len(grids) > 1 else []
    found += [
        _group("block", name, layers, grids)
        for name, layers in by_block.items()
        if 1 < len(layers) < len(grids)
    ]
    found += [
        _group("grid", name, layers, grids)
        for name, layers in by_grid.items()
        if 1 < len(layers) < len(grids)
    ]
    return (
        *found,
        *(Group("layer", names[name], name, (name,), grid) for name, grid in grids.items()),
    )


def _group(
    kind: Literal["all", "block", "grid"],
    name: str,
    layers: tuple[str, ...],
    grids: Mapping[str, Grid],
) -> Group:
    return Group(
        kind,
        name,
        f"{len(layers)} layers",
        layers,
        max((grids[layer] for layer in layers), key=lambda g: g[0] * g[1]),
    )


def block_names(layers: tuple[str, ...]) -> dict[str, str]:
    """The part of the model that a layer belongs to: "down", "mid", "up"; "double" and "single"
    stream; or its first name."""
    first = {name: re.sub(r"_?blocks?$", "", name.split(".")[0]) for name in layers}
    double = "double" if "single_transformer" in first.values() else "transformer"
    return {
        name: {"single_transformer": "single", "transformer": double}.get(part, part)
        for name, part in first.items()
    }


def short_names(layers: tuple[str, ...]) -> dict[str, str]:
    """The block and the numbers of the module path, without the numbers that are 0 in the whole
    block; the path where two agree."""
    blocks = block_names(layers)
    numbers = {name: [int(part) for part in name.split(".") if part.isdecimal()] for name in layers}
    short = {}
    for name in layers:
        others = [numbers[other] for other in layers if blocks[other] == blocks[name]]
        kept = [
            n
            for k, n in enumerate(numbers[name])
            if any(k < len(other) and other[k] for other in others)
        ]
        short[name] = " ".join([blocks[name], ".".join(map(str, kept))]).strip()
    agree = {s for s in short.values() if list(short.values()).count(s) > 1}
    return {name: name if s in agree else s for name, s in short.items()}
