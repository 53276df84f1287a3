"""Records on disk: safetensors with a JSON header, one file or a folder with one file per step.

The format, readable with safetensors and json alone. The metadata entry ``attncontrol`` of a file
is JSON:

    schema      1
    dims        axes of every map: image, branch, step, head, height, width, token (videos: frame
                before height); 1 long if reduced
    direction   "image->text" ...: from the queries to the keys
    encoding    "float32", "float16", "bfloat16" or "sqrt8"
    branches, steps, timesteps, sigmas   coordinates of these axes
    images      for every image its prompt, its text sequence (``tokens``) and the ``words`` of the
                token axis with their positions
    others      for every branch after the first its ``images``, where it reads another text
    sites       for every layer its kind, heads and stride
    reductions  what was done to the probabilities, in order
    about       pipeline, model, scheduler, guidance, seeds, versions
    checksums   for every tensor 8 hexadecimal digits, see ``checksum``
    run, index, total   in a folder: the name of the run, the same in all files; the place of the
                step among those recorded; in the last file how many there are, null in the others
    partial     what is missing, null of a whole record
    sources     beside an edit with a source the number of the image that each image takes from

The maps of layer NAME are the tensor ``maps/NAME``, NaN in steps in which its site or branch did
not run; the file of a step may leave such a site out. In "sqrt8" that is q (uint8) and
``scale/NAME`` is m (float32, one number for every image, branch, step, head and token), where
probability = m (q / 255)^2, off by less than 0.4 % of m; m is NaN where the site did not run.
Where there are sources, ``taken`` (uint8 [image step height width]) and ``taken/NAME`` (float32
[image step token]) are ``cells`` and ``words`` of ``maps.taken``. Numbers of the header that are
not finite are null. ``pictures`` is uint8 [image height width 3]. The metadata entry
``attncontrol.checksum`` is the CRC-32 of the header. Records of other programs may leave out all
checksums.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from attncontrol.checks.arguments import checked
from attncontrol.errors import NonFiniteError, RecordError, SettingError, WriteError
from attncontrol.maps.opened import Kept, checksum, checksum_of, path_of, require_fit
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.recording import BranchText, Recording
from attncontrol.maps.shown import require_pictures
from attncontrol.writing import Unfinished, whole

Encoding = Literal["float32", "float16", "bfloat16", "sqrt8"]


@checked
def save(maps: AttentionMaps, file: Path | str, *, encoding: Encoding = "float32") -> Path:
    """Writes a record to one file, all at once or not at all; a record that is there is named in a
    warning and replaced.

    ``float16`` halves the size, ``sqrt8`` quarters it. Raises WriteError if it cannot be written,
    if ``file`` is no record, or if ``maps`` are read from it; CouplingError if nothing is recorded
    yet; NonFiniteError for "sqrt8" of maps of which a part is NaN or infinite, and for numbers too
    large for "float16"; SettingError for other encodings and for pictures that are no PIL images of
    one size; RecordError if the values do not fit each other.

        save(maps, "run.safetensors", encoding="float16")
        maps = load("run.safetensors")
    """
    require_encoding(encoding)
    path = path_of(file)
    said = header(maps, encoding)
    with whole(path, is_record, inputs=maps.files) as part:
        tensors = encoded_layers(maps.layers, encoding)
        tensors |= maps.taken.tensors if maps.taken else {}
        if len(maps.pictures):
            tensors["pictures"] = pixels(maps.pictures, len(maps.prompts))
        write(part, tensors, said, path)
    return path


def require_encoding(encoding: Any) -> None:
    if encoding not in get_args(Encoding):
        raise SettingError(
            f"encoding={encoding!r}: choose from {', '.join(map(repr, get_args(Encoding)))}"
        )


def is_record(path: Path) -> bool:
    """Whether a file was made by ``save`` or ``record``, whatever its state."""
    try:
        with safe_open(path, "np") as tensors:
            return "attncontrol" in (tensors.metadata() or {})
    except (OSError, SafetensorError):
        return False


def write(
    part: Unfinished, tensors: dict[str, Tensor], said: Mapping[str, Any], final: Path
) -> None:
    """One file that will be named ``final``. Raises RecordError if ``load`` would refuse it;
    WriteError."""
    sums = {name: checksum(tensor) for name, tensor in tensors.items()}
    text = json.dumps(finite({**said, "checksums": sums}), allow_nan=False)
    require_fit(final, text, {name: Kept.of(tensor) for name, tensor in tensors.items()})
    about = {"attncontrol": text, "attncontrol.checksum": checksum_of(text)}
    try:
        save_file(tensors, part, about)
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while serializing: ")
        raise WriteError(f"{final} was not written: {reason}; all is as before") from error


def encoded_layers(layers: Mapping[str, Tensor], encoding: Encoding) -> dict[str, Tensor]:
    """The tensors of a file. Raises NonFiniteError for values that the encoding cannot keep."""
    tensors: dict[str, Tensor] = {}
    for name, of_layer in layers.items():
        tensors |= (_quantised if encoding == "sqrt8" else _rounded)(name, of_layer, encoding)
    return tensors


def _rounded(name: str, maps: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    kept = maps.to(getattr(torch, encoding)).contiguous()
    if kept.isinf().sum() > maps.isinf().sum():
        raise NonFiniteError(
            f'{name} holds values too large for {encoding!r}; "float32" can keep them'
        )
    return {f"maps/{name}": kept}


def _quantised(name: str, maps: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    cells = tuple(range(4, maps.ndim - 1))
    maps = maps.float()
    ran = ~maps.isnan().all(dim=cells, keepdim=True)
    if not ((maps.isfinite() & (maps >= 0)) | ~ran).all():
        raise NonFiniteError(
            f"{name} holds maps of which a part is NaN, infinite or negative; {encoding!r} cannot "
            'keep them, "float32" and "float16" can'
        )
    scale = maps.amax(cells, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    shares = (maps / scale).where(ran, 0.0)
    return {
        f"maps/{name}": (255 * shares.sqrt()).round().to(torch.uint8).contiguous(),
        f"scale/{name}": scale.contiguous(),
    }


def pixels(pictures: Sequence[Any], count: int) -> Tensor:
    """uint8 [image height width 3]. Raises SettingError for other than ``count`` PIL images of one
    size."""
    require_pictures(pictures, count)
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))


def header(maps: AttentionMaps | Recording, encoding: Encoding) -> dict[str, Any]:
    """The JSON header of a record, as a dict. Raises RecordError for layers without a site."""
    if not len(maps.prompts) == len(maps.tokens) == len(maps.spans):
        raise RecordError(
            f"{len(maps.prompts)} prompts, tokens of {len(maps.tokens)}, words of "
            f"{len(maps.spans)}: a record has these for every image"
        )
    if without := [name for name in maps.layers if name not in maps.sites]:
        raise RecordError(f"the layer {without[0]} has no site: replace(sites=...) names them")
    video = any(len(shape) == 8 for shape in maps.shapes.values())
    named = ("branches", "steps", "timesteps", "sigmas", "direction", "reductions", "about")
    return {
        "schema": 1,
        "dims": ["image", "branch", "step", "head", *["frame"] * video, "height", "width", "token"],
        "encoding": encoding,
        "images": _images(maps),
        "others": {branch: _images(of) for branch, of in maps.others.items()},
        "sites": [asdict(maps.sites[name]) for name in maps.layers],
        "partial": maps.partial,
        "sources": list(maps.taken.sources) if maps.taken else [],
    } | {name: finite(getattr(maps, name)) for name in named}


def _images(text: BranchText | AttentionMaps | Recording) -> list[dict[str, Any]]:
    return [
        {
            "prompt": prompt,
            "tokens": [asdict(t) for t in tokens],
            "words": [asdict(s) for s in spans],
        }
        for prompt, tokens, spans in zip(text.prompts, text.tokens, text.spans, strict=True)
    ]


def finite(value: Any) -> Any:
    """What JSON can say of values: numbers that are not finite are None, other objects their
    text."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)
