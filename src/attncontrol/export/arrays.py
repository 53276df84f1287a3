"""Recordings for other libraries: numpy, xarray, zarr, and pandas (``pip install
attncontrol[arrays]``).

The same words name the axes everywhere: image, branch, step, head, frame (videos only), height,
width, token; and site, the module path of a layer. A step or head is -1 where the mean over them
was recorded.
"""

import importlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol.errors import PackageError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.store import finite, header

_MEAN = -1


def to_npz(maps: AttentionMaps, file: Path | str) -> Path:
    """One array per layer, named as its site, and the JSON header of ``attncontrol.save`` as the
    array ``attncontrol``."""
    arrays: dict[str, Any] = {name: of_layer.numpy() for name, of_layer in maps.layers.items()}
    arrays["attncontrol"] = np.array(json.dumps(header(maps, "float32"), allow_nan=False))
    if len(maps.pictures):
        arrays["pictures"] = np.stack([np.asarray(picture) for picture in maps.pictures])
    path = Path(file)
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    return path


def to_xarray(maps: AttentionMaps) -> Any:
    """A DataTree with one node per site, each with the variable ``attention`` and the same axes:
    image, branch, step, head, height, width, token (videos: frame before height).

    Coordinates: ``image`` 0, 1 ...; ``branch`` "cond", "uncond"; ``step`` as in ``maps.steps``,
    with ``timestep`` and ``sigma`` along it (NaN if not known); ``head`` 0, 1 ...; ``height`` and
    ``width`` the middles of the cells, 0 .. 1 from the top left; ``token`` the words, the second of
    the same as "cat#2", where all images have the same, else 0, 1 ... with ``label`` [image token],
    or [branch image token] where the branches have others;
    ``prompt`` along image. ``step`` and ``head`` are -1 where the mean over them was recorded.
    Steps in which a site did not run are NaN. Attributes of a node: kind, stride and heads; of the
    tree: direction, reductions, and ``about`` as JSON. Raises PackageError without xarray.

        tree = to_xarray(maps)
        tree["mid_block.attentions.0.transformer_blocks.0.attn2"]["attention"].sel(token="cat")
    """
    xarray = _library("xarray")
    dims = header(maps, "float32")["dims"]
    nodes = {}
    for name, of_layer in maps.layers.items():
        site = maps.sites[name]
        nodes[name] = xarray.Dataset(
            {"attention": (dims, of_layer.numpy())},
            _coordinates(maps, name, dict(zip(dims, of_layer.shape, strict=True))),
            {"kind": site.kind, "stride": site.stride, "heads": site.heads},
        )
    attributes = {
        "direction": maps.direction,
        "reductions": list(maps.reductions),
        "about": json.dumps(finite(maps.about), allow_nan=False),
    }
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes)} | nodes)


def to_zarr(maps: AttentionMaps, folder: Path | str) -> Path:
    """The tree of ``to_xarray`` as a zarr group with one group per site."""
    _library("zarr")
    to_xarray(maps).to_zarr(str(folder), mode="w", consolidated=False)
    return Path(folder)


def to_dataframe(maps: AttentionMaps) -> Any:
    """Statistics of every map, a row for each image, branch, step, site, head and token (a word, or
    a piece of one): ``mean`` and ``max`` of the probability, ``peak_x`` and ``peak_y`` (centre of
    the largest cell, in fractions of the picture), ``centroid_x`` and ``centroid_y``, and
    ``entropy`` of the map as a distribution over cells, as a share of that of a uniform one.

    ``step`` and ``head`` are -1 where the mean over them was recorded. All statistics are NaN where
    the site did not run. Of videos the frames are one map.
    """
    return _library("pandas").DataFrame(list(_rows(maps)))


def _coordinates(maps: AttentionMaps, name: str, sizes: dict[str, int]) -> dict[str, Any]:
    steps = _steps(maps, sizes["step"])
    apart = len(steps) == len(maps.timesteps) and steps != [_MEAN]
    sigmas = [np.nan if sigma is None else sigma for sigma in maps.sigmas]
    unknown = [np.nan] * len(steps)
    coordinates: dict[str, Any] = {
        "image": np.arange(sizes["image"]),
        "prompt": ("image", list(maps.prompts)),
        "branch": list(maps.branches),
        "step": steps,
        "timestep": ("step", list(maps.timesteps) if apart else unknown),
        "sigma": ("step", sigmas if apart else unknown),
        "head": _heads(maps, name, sizes["head"]),
        "height": _middles(sizes["height"]),
        "width": _middles(sizes["width"]),
    }
    if "frame" in sizes:
        coordinates["frame"] = np.arange(sizes["frame"])
    return coordinates | _tokens([_labels(maps, of) for of in maps.branches], sizes["token"])


def _labels(maps: AttentionMaps, branch: str) -> tuple[tuple[str, ...], ...]:
    """The names along the token axis of a branch, for every image."""
    text = maps.others.get(branch, maps)
    return tuple(tuple(span.text for span in of_image) for of_image in text.spans)


def _tokens(labels: Sequence[Sequence[Sequence[str]]], count: int) -> dict[str, Any]:
    """From those of every branch and image. Empty labels fill up images that have fewer; attention
    among cells has none."""
    numbered = {"token": np.arange(count)}
    if not any(map(any, labels)):
        return numbered
    if len({tuple(of_image) for of_branch in labels for of_image in of_branch}) == 1:
        return {"token": _numbered(labels[0][0])}
    filled = [
        [[*_numbered(of_image), *[""] * (count - len(of_image))] for of_image in of_branch]
        for of_branch in labels
    ]
    if len({json.dumps(of_branch) for of_branch in filled}) == 1:
        return numbered | {"label": (("image", "token"), filled[0])}
    return numbered | {"label": (("branch", "image", "token"), filled)}


def _numbered(labels: Sequence[str]) -> list[str]:
    """ "cat", "cat#2": a label is found once."""
    seen: Counter[str] = Counter()
    names = []
    for label in labels:
        seen[label] += 1
        names.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return names


def _steps(maps: AttentionMaps, count: int) -> list[int]:
    return list(maps.steps) if count == len(maps.steps) else [_MEAN] * count


def _heads(maps: AttentionMaps, name: str, count: int) -> list[int]:
    return list(range(count)) if count == maps.sites[name].heads else [_MEAN] * count


def _middles(cells: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) / cells


def _rows(maps: AttentionMaps) -> Iterator[dict[str, Any]]:
    for name, of_layer in maps.layers.items():
        values = of_layer.double().numpy()
        steps, heads = _steps(maps, values.shape[2]), _heads(maps, name, values.shape[3])
        for image, branch, step, head in np.ndindex(values.shape[:4]):
            for k, label in enumerate(_labels(maps, maps.branches[branch])[image]):
                at = {
                    "image": image,
                    "branch": maps.branches[branch],
                    "step": steps[step],
                    "site": name,
                    "head": heads[head],
                    "token": label,
                }
                yield at | _statistics(values[image, branch, step, head, ..., k])


def _statistics(cells: np.ndarray) -> dict[str, float]:
    """Of one map [*frame height width]."""
    names = ("mean", "max", "peak_x", "peak_y", "centroid_x", "centroid_y", "entropy")
    if np.isnan(cells).all():
        return dict.fromkeys(names, np.nan)
    cells = cells.reshape(-1, *cells.shape[-2:])
    y, x = map(_middles, cells.shape[1:])
    total = cells.sum()
    share = cells / total if total > 0 else np.full_like(cells, 1 / cells.size)
    _, row, column = np.unravel_index(cells.argmax(), cells.shape)
    plain = share[share > 0]
    entropy = float(-(plain * np.log(plain)).sum() / np.log(max(cells.size, 2)))
    centroid = (float((share.sum((0, 1)) * x).sum()), float((share.sum((0, 2)) * y).sum()))
    found = (cells.mean(), cells.max(), x[column], y[row], *centroid, entropy)
    return dict(zip(names, found, strict=True))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PackageError(f"{name} is not installed: pip install attncontrol[arrays]") from error
