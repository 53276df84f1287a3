"""Attention records on disk: safetensors with a JSON header, readable without this package.

A record is one file, or a folder of files ``step-0000.safetensors`` ... which hold one step each
and are complete in themselves; a run that is killed leaves those of its finished steps. The
metadata entry ``attncontrol`` of a file is JSON:

    schema      1
    dims        axes of every map: image, branch, step, head, height, width, token (videos: frame
                before height); 1 long if reduced
    direction   "image->text" ...: from the queries to the keys
    encoding    "float32", "float16", "bfloat16" or "sqrt8"
    branches, steps, timesteps, sigmas   coordinates of these axes
    images      for every image its prompt, its text sequence (``tokens``) and the ``words`` of the
                token axis with their positions, none (and maps of NaN) if the text lacks the word
    others      the same for each branch after the first, by its name (absent in older records)
    sites       for every layer its kind, heads and stride
    reductions  what was done to the probabilities, in order
    about       pipeline, model, scheduler, guidance, seeds, versions

The maps of layer NAME are the tensor ``maps/NAME``, NaN in steps in which its site or branch did
not run; the file of a step may leave such a site out. In "sqrt8" that is q (uint8) and
``scale/NAME`` is m (float32, one number for every image, branch, step, head and token), where
probability = m (q / 255)^2, off by less than 0.4 % of m; m is NaN where the site did not run.
Numbers of the header that are not finite are null. ``pictures`` is uint8 [image height width 3].
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from attncontrol.attention.sites import Site
from attncontrol.errors import NonFiniteError, RecordError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.recording import BranchText, Shape, Unread
from attncontrol.prompts.tokens import Span, Token

SCHEMA = 1
Encoding = Literal["float32", "float16", "bfloat16", "sqrt8"]
PICTURES = "pictures.safetensors"


def save(maps: AttentionMaps, file: Path | str, *, encoding: Encoding = "float32") -> Path:
    """Writes a record to one file, all at once or not at all; an existing one is replaced.

    ``float16`` halves the size, ``sqrt8`` quarters it. Raises CouplingError if nothing is recorded
    yet, NonFiniteError for "sqrt8" of maps of which a part is NaN or infinite.

        save(maps, "run.safetensors", encoding="float16")
        maps = load("run.safetensors")
    """
    tensors: dict[str, Tensor] = {}
    for name, of_layer in maps.layers.items():
        tensors |= _encoded(name, of_layer, encoding)
    if len(maps.pictures):
        tensors["pictures"] = _pixels(maps.pictures)
    _write(Path(file), tensors, header(maps, encoding))
    return Path(file)


def save_pictures(pictures: Sequence[Any], folder: Path) -> None:
    """Puts the pictures beside the steps of a streamed record."""
    _write(folder / PICTURES, {"pictures": _pixels(pictures)}, {"schema": SCHEMA})


def load(path: Path | str) -> AttentionMaps:
    """Opens a record, a file or a folder of steps. Maps are read when they are looked at.

    Raises RecordError if there is no record or it has a newer schema.

        maps = load("run.safetensors")
        maps["cat"]  # [image height width]
    """
    path = Path(path)
    files = tuple(sorted(path.glob("step-*.safetensors"))) if path.is_dir() else (path,)
    headers = [_read_header(file) for file in files]
    if not headers:
        raise RecordError(f"{path} holds no attention record: there is no step-*.safetensors in it")
    first = headers[0]
    along = {
        name: tuple(v for h in headers for v in h[name])
        for name in ("steps", "timesteps", "sigmas")
    }
    pictures = path / PICTURES if path.is_dir() else path
    sites = {site["name"]: Site(**site) for header in headers for site in header["sites"]}
    return AttentionMaps(
        layers=Stored(files, tuple(sites), first["encoding"]),
        sites=sites,
        **vars(_text(first["images"])),
        others={branch: _text(of) for branch, of in first.get("others", {}).items()},
        branches=tuple(first["branches"]),
        direction=first["direction"],
        reductions=tuple(first["reductions"]),
        about=first["about"],
        pictures=_read_pictures(pictures) if pictures.exists() else (),
        **along,
    )


def _text(images: Sequence[Mapping[str, Any]]) -> BranchText:
    return BranchText(
        tuple(image["prompt"] for image in images),
        tuple(tuple(Token(**token) for token in image["tokens"]) for image in images),
        tuple(
            tuple(Span(word["text"], tuple(word["positions"])) for word in image["words"])
            for image in images
        ),
    )


@dataclass(frozen=True)
class Stored(Unread):
    """The layers of a record on disk, each read when asked for."""

    files: tuple[Path, ...]
    names: tuple[str, ...]
    encoding: Encoding

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        steps = [self._read(file, name) for file in self.files]
        ran = next(step for step in steps if step is not None)
        absent = torch.full_like(ran, torch.nan)
        return torch.cat([absent if step is None else step for step in steps], 2)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shapes(self) -> dict[str, Shape]:
        found: dict[str, Shape] = {}
        steps = 0
        for file in self.files:
            with safe_open(file, "pt") as tensors:
                inside = {key.removeprefix("maps/") for key in tensors.keys()}  # noqa: SIM118
                of_file = {
                    name: tuple(tensors.get_slice(f"maps/{name}").get_shape())
                    for name in self.names
                    if name in inside
                }
            found = of_file | found
            steps += next(iter(of_file.values()))[2]
        return {name: (*found[name][:2], steps, *found[name][3:]) for name in self.names}

    def _read(self, file: Path, name: str) -> Tensor | None:
        """None if the site did not run in this file's step."""
        with safe_open(file, "pt") as tensors:
            if f"maps/{name}" not in tensors.keys():  # noqa: SIM118 - it is no mapping
                return None
            maps: Tensor = tensors.get_tensor(f"maps/{name}").float()
            if self.encoding == "sqrt8":
                maps = (maps / 255).square_().mul_(tensors.get_tensor(f"scale/{name}"))
        return maps


def _encoded(name: str, maps: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    if encoding != "sqrt8":
        return {f"maps/{name}": maps.to(getattr(torch, encoding)).contiguous()}
    cells = tuple(range(4, maps.ndim - 1))
    ran = ~maps.isnan().all(dim=cells, keepdim=True)
    if not (maps.isfinite() | ~ran).all():
        raise NonFiniteError(
            f'{name} holds maps of which a part is NaN or infinite; "sqrt8" cannot keep them, '
            '"float32" and "float16" can'
        )
    scale = maps.amax(cells, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    shares = (maps / scale).where(ran, 0.0)
    return {
        f"maps/{name}": (255 * shares.sqrt()).round().to(torch.uint8).contiguous(),
        f"scale/{name}": scale.contiguous(),
    }


def _pixels(pictures: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))


def _read_pictures(file: Path) -> tuple[Image.Image, ...]:
    with safe_open(file, "np") as tensors:
        kept = "pictures" in tensors.keys()  # noqa: SIM118 - it is no mapping
        return tuple(map(Image.fromarray, tensors.get_tensor("pictures"))) if kept else ()


def header(maps: AttentionMaps, encoding: Encoding) -> dict[str, Any]:
    """The JSON header of a record, as a dict."""
    video = len(next(iter(maps.shapes.values()))) == 8
    named = ("branches", "steps", "timesteps", "sigmas", "direction", "reductions", "about")
    return {
        "schema": SCHEMA,
        "dims": ["image", "branch", "step", "head", *["frame"] * video, "height", "width", "token"],
        "encoding": encoding,
        "images": _images(maps),
        "others": {branch: _images(of) for branch, of in maps.others.items()},
        "sites": [asdict(maps.sites[name]) for name in maps.layers],
    } | {name: finite(getattr(maps, name)) for name in named}


def _images(text: BranchText | AttentionMaps) -> list[dict[str, Any]]:
    return [
        {
            "prompt": prompt,
            "tokens": [asdict(t) for t in tokens],
            "words": [asdict(s) for s in spans],
        }
        for prompt, tokens, spans in zip(text.prompts, text.tokens, text.spans, strict=True)
    ]


def finite(value: Any) -> Any:
    """What JSON can say of values: numbers that are not finite are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def _write(file: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    save_file(tensors, unfinished, {"attncontrol": json.dumps(header, allow_nan=False)})
    unfinished.replace(file)


def _read_header(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, "pt") as tensors:
            header = json.loads((tensors.metadata() or {})["attncontrol"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RecordError(
            f"{file} is not an attention record ({error}); write one with attncontrol.save"
        ) from error
    if header["schema"] > SCHEMA:
        raise RecordError(
            f"{file} has schema {header['schema']}, this version reads {SCHEMA}: update attncontrol"
        )
    return dict(header)
