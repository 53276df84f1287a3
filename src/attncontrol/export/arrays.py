"""Recordings for numpy, xarray, zarr and pandas (``pip install attncontrol[arrays]``).

The same words name the axes everywhere: image, branch, step, head, frame (videos only), height,
width, token; and site, the module path of a layer. A step or head is -1 where the mean over them
was recorded.
"""

import importlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol.checks.arguments import checked
from attncontrol.errors import PackageError
from attncontrol.export.ours import is_npz, is_tree
from attncontrol.maps.opened import path_of
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.store import finite, header, pixels
from attncontrol.version import __version__
from attncontrol.writing import whole

_MEAN = -1
_PLACE = ("image", "branch", "step", "site", "head", "token")
_MEASURES = ("mean", "max", "peak_x", "peak_y", "centroid_x", "centroid_y", "entropy")


@checked
def to_npz(maps: AttentionMaps, file: Path | str) -> Path:
    """One array per layer, named as its site, and the JSON header of ``attncontrol.save`` as the
    array ``attncontrol``. One that is there is named in a warning and replaced. Raises WriteError
    for another file and for one that ``maps`` are read from."""
    path = path_of(file)
    with whole(path, is_npz, inputs=maps.files) as part:
        arrays: dict[str, Any] = {name: of_layer.numpy() for name, of_layer in maps.layers.items()}
        arrays["attncontrol"] = np.array(json.dumps(finite(header(maps, "float32"))))
        if len(maps.pictures):
            arrays["pictures"] = pixels(maps.pictures, len(maps.prompts)).numpy()
        with part.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
    return path


@checked
def to_xarray(maps: AttentionMaps) -> Any:
    """A DataTree with one node per site, each with the variable ``attention`` and the same axes:
    image, branch, step, head, height, width, token (videos: frame before height).

    Coordinates: ``image`` 0, 1 ...; ``branch`` "cond", "uncond", "reference"; ``step`` as in
    ``maps.steps``, with ``timestep`` and ``sigma`` along it (NaN if not known); ``head`` 0, 1 ...;
    ``height`` and ``width`` the middles of the cells, 0 .. 1 from the top left; ``token`` the
    words, the second of the same as "cat#2", where all images have the same, else 0, 1 ... with
    ``label`` [image token], or [branch image token] where the branches have others;
    ``prompt`` along image. ``step`` and ``head`` are -1 where the mean over them was recorded.
    Steps in which a site did not run are NaN. Attributes of a node: kind, stride and heads; of the
    tree: the version as ``attncontrol``, direction, reductions, ``about`` as JSON, and ``partial``
    where a run was stopped. Raises PackageError without xarray.

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
        "attncontrol": __version__,
        "direction": maps.direction,
        "reductions": list(maps.reductions),
        "about": json.dumps(finite(maps.about), allow_nan=False),
    }
    attributes |= {"partial": maps.partial} if maps.partial else {}
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs=attributes)} | nodes)


@checked
def to_zarr(maps: AttentionMaps, folder: Path | str) -> Path:
    """The tree of ``to_xarray`` as a zarr group with one group per site. One that is there is named
    in a warning and replaced. Raises WriteError for a folder that holds something else."""
    _library("zarr")
    path = path_of(folder)
    with whole(path, is_tree, inputs=maps.files) as part:
        tree = to_xarray(maps).map_over_datasets(_texts)
        tree.to_zarr(str(part), mode="w", consolidated=False)
    return path


def _texts(data: Any) -> Any:
    """Texts of any length: those of a fixed one have no specification in zarr."""
    texts = {name: of.astype(object) for name, of in data.coords.items() if of.dtype.kind == "U"}
    return data.assign_coords(texts)


@checked
def to_csv(maps: AttentionMaps, file: Path | str) -> Path:
    """The table of ``to_dataframe``. One that is there is named in a warning and replaced. Raises
    WriteError for another file."""
    with whole(path := path_of(file), is_table, inputs=maps.files) as part:
        to_dataframe(maps).to_csv(part, index=False)
    return path


def is_table(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.readline(1000).startswith(",".join((*_PLACE, *_MEASURES)).encode())
    except OSError:
        return False


@checked
def to_dataframe(maps: AttentionMaps) -> Any:
    """Statistics of every map, a row for each image, branch, step, site, head and token (a word, or
    a piece of one): ``mean`` and ``max`` of the probability, ``peak_x`` and ``peak_y`` (centre of
    the largest cell, in fractions of the picture), ``centroid_x`` and ``centroid_y``, and
    ``entropy`` of the map as a distribution over cells, as a share of that of a uniform one.

    ``step`` and ``head`` are -1 where the mean over them was recorded. All statistics are NaN where
    the site did not run, and of maps that are not finite. Of videos the frames are one map. Cells
    that are attended to are numbered. The column ``partial`` is there where a run was stopped.
    """
    table = _library("pandas").DataFrame(list(_rows(maps)), columns=[*_PLACE, *_MEASURES])
    return table.assign(partial=maps.partial) if maps.partial else table


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


def _tokens(labels: Sequence[Sequence[Sequence[str]]], length: int) -> dict[str, Any]:
    """From those of every branch and image. Empty labels fill up images that have fewer; attention
    among cells has none."""
    if not any(map(any, labels)):
        return {"token": np.arange(length)}
    if len({tuple(of_image) for of_branch in labels for of_image in of_branch}) == 1:
        return {"token": distinct(labels[0][0])}
    numbered = {"token": np.arange(length)}
    filled = [
        [[*distinct(of_image), *[""] * (length - len(of_image))] for of_image in of_branch]
        for of_branch in labels
    ]
    if len({json.dumps(of_branch) for of_branch in filled}) == 1:
        return numbered | {"label": (("image", "token"), filled[0])}
    return numbered | {"label": (("branch", "image", "token"), filled)}


def distinct(labels: Sequence[str]) -> list[str]:
    """ "cat", "cat#2": a label is found once."""
    names: list[str] = []
    for label in labels:
        numbered = (f"{label}#{number}" for number in count(2))
        names.append(next(name for name in chain([label], numbered) if name not in names))
    return names


def _steps(maps: AttentionMaps, length: int) -> list[int]:
    return list(maps.steps) if length == len(maps.steps) else [_MEAN] * length


def _heads(maps: AttentionMaps, name: str, length: int) -> list[int]:
    return list(range(length)) if length == maps.sites[name].heads else [_MEAN] * length


def _middles(cells: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) / cells


def _rows(maps: AttentionMaps) -> Iterator[dict[str, Any]]:
    numbered = not any(maps.labels)
    for name, of_layer in maps.layers.items():
        values = of_layer.double().numpy()
        steps, heads = _steps(maps, values.shape[2]), _heads(maps, name, values.shape[3])
        for image, branch, step, head in np.ndindex(values.shape[:4]):
            named = _labels(maps, maps.branches[branch])[image]
            for k, label in enumerate(range(values.shape[-1]) if numbered else named):
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
    if not np.isfinite(cells).all():
        return dict.fromkeys(_MEASURES, np.nan)
    cells = cells.reshape(-1, *cells.shape[-2:])
    (y, x), total = map(_middles, cells.shape[1:]), cells.sum()
    share = cells / total if total > 0 else np.full_like(cells, 1 / cells.size)
    _, row, column = np.unravel_index(cells.argmax(), cells.shape)
    plain = share[share > 0]
    entropy = float(-(plain * np.log(plain)).sum() / np.log(max(cells.size, 2)))
    centroid = (float((share.sum((0, 1)) * x).sum()), float((share.sum((0, 2)) * y).sum()))
    found = cells.mean(), cells.max(), x[column], y[row], *centroid, entropy
    return dict(zip(_MEASURES, found, strict=True))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PackageError(f"{name} is not installed: pip install attncontrol[arrays]") from error
