"""Records for other libraries: numpy, xarray, zarr, and pandas (``pip install
attncontrol[arrays]``)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol.errors import UnsupportedError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.store import header


def to_npz(maps: AttentionMaps, file: Path | str) -> Path:
    """One array per layer, named as the layer, and the JSON header of ``attncontrol.store`` as the
    array ``attncontrol``."""
    arrays: dict[str, Any] = {name: of_layer.numpy() for name, of_layer in maps.layers.items()}
    arrays["attncontrol"] = np.array(json.dumps(header(maps, "float32")))
    if len(maps.pictures):
        arrays["pictures"] = np.stack([np.asarray(picture) for picture in maps.pictures])
    path = Path(file)
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    return path


def to_xarray(maps: AttentionMaps) -> Any:
    """A Dataset with one variable per layer: image, branch, step, head, height, width, token. The
    axes of a grid are named after its size, as layers differ in it; ``word`` [image token] names
    the tokens ("" where an image has fewer)."""
    xarray = _library("xarray")
    dims = header(maps, "float32")["dims"]
    variables = {}
    for name, of_layer in maps.layers.items():
        sizes = dict(zip(dims, of_layer.shape, strict=True))
        kept = len(maps.steps) == sizes["step"]
        names = [f"{d}_{sizes[d]}" if d in ("height", "width") else d for d in dims]
        names = [n if n != "step" or kept else "all_steps" for n in names]
        names = [n if n != "head" else f"head_{sizes['head']}" for n in names]
        site = maps.sites[name]
        variables[name] = (
            names,
            of_layer.numpy(),
            {"kind": site.kind, "stride": site.stride, "direction": maps.direction},
        )
    most = max(map(len, maps.labels))
    words = [[*labels, *[""] * (most - len(labels))] for labels in maps.labels]
    coordinates: dict[str, Any] = {
        "image": list(range(len(maps.prompts))),
        "prompt": ("image", list(maps.prompts)),
        "branch": list(maps.branches),
        "step": list(maps.steps),
        "timestep": ("step", list(maps.timesteps)),
    }
    if maps.direction != "image->image":
        coordinates["word"] = (("image", "token"), words)
    attributes = {
        "direction": maps.direction,
        "reductions": list(maps.reductions),
        "about": json.dumps(maps.about),
    }
    return xarray.Dataset(variables, coordinates, attributes)


def to_zarr(maps: AttentionMaps, folder: Path | str) -> Path:
    """The Dataset of ``to_xarray`` as a zarr group."""
    _library("zarr")
    to_xarray(maps).to_zarr(str(folder), mode="w", consolidated=False)
    return Path(folder)


def to_dataframe(maps: AttentionMaps) -> Any:
    """Statistics of every map, a row for each image, branch, step, head, layer and word: ``mean``
    and ``max`` of the probability, ``peak_x`` and ``peak_y`` (centre of the largest cell, in
    fractions of the picture), ``centroid_x`` and ``centroid_y``, and ``entropy`` of the map as a
    distribution over cells, as a share of that of a uniform one. ``step`` and ``head`` are -1 where
    the mean over them was recorded. Of videos the frames are one map.
    """
    return _library("pandas").DataFrame(list(_statistics(maps)))


def _statistics(maps: AttentionMaps) -> Iterator[dict[str, Any]]:
    for layer, tensor in maps.layers.items():
        of_layer = tensor.double().numpy()
        height, width = of_layer.shape[-3:-1]
        y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        for image, branch, step, head in np.ndindex(of_layer.shape[:4]):
            for k, word in enumerate(maps.labels[image]):
                cells = of_layer[image, branch, step, head, ..., k].reshape(-1, height, width)
                total = cells.sum()
                share = cells / total if total > 0 else np.full_like(cells, 1 / cells.size)
                top = np.unravel_index(cells.argmax(), cells.shape)
                plain = share[share > 0]
                yield {
                    "image": image,
                    "branch": maps.branches[branch],
                    "step": maps.steps[step] if of_layer.shape[2] == len(maps.steps) else -1,
                    "layer": layer,
                    "head": head if of_layer.shape[3] == maps.sites[layer].heads else -1,
                    "word": word,
                    "mean": cells.mean(),
                    "max": cells.max(),
                    "peak_x": x[top[2]],
                    "peak_y": y[top[1]],
                    "centroid_x": float((share.sum((0, 1)) * x).sum()),
                    "centroid_y": float((share.sum((0, 2)) * y).sum()),
                    "entropy": float(-(plain * np.log(plain)).sum() / np.log(cells.size))
                    if cells.size > 1
                    else 0.0,
                }


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnsupportedError(
            f"{name} is not installed: pip install attncontrol[arrays]"
        ) from error
