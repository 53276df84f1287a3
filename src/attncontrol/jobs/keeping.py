"""Pictures in the folder of a job, each with all that is needed to make it again.

A record comes first, then the picture, then its JSON, and last the row of the index: what a killed
process leaves is found whole by its hashes, or made again.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from attncontrol.export.folder import encoded, told_by
from attncontrol.jobs.item import Item
from attncontrol.jobs.made import Made
from attncontrol.jobs.pictures import Painted
from attncontrol.jobs.places import Place
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.store import save as save_maps

PICTURES, RECORDS = "pictures", "records"
_END = b"IEND\xaeB`\x82"  # of every whole PNG


def keep(place: Place, painted: Painted, versions: Mapping[str, str], seconds: float) -> Made:
    """Writes a picture. Raises WriteError."""
    item, record, digest = painted.item, None, None
    if painted.maps is not None:
        data, record = _stored(painted.maps), f"{RECORDS}/{item.name}.safetensors"
        digest = hashlib.sha256(data).hexdigest()
        place.put(record, data)
    about = {
        "item": item.model_dump(mode="json", exclude_defaults=True),
        "versions": dict(versions),
        "batch": [painted.size, painted.place],
        "pixels": pixels_of(painted.image),
        "losses": list(painted.losses),
        "refinements": list(painted.refinements),
        "record": digest,
    }
    place.put(f"{PICTURES}/{item.name}.png", encoded(painted.image, ".png", about))
    place.put(f"{PICTURES}/{item.name}.json", _text(about))
    return _made(item, about, seconds, painted.memory)


def adopted(place: Place, item: Item, versions: Mapping[str, str]) -> Made | None:
    """A picture that is there without a row, if it and its record are whole and made by these
    versions."""
    data = place.get(f"{PICTURES}/{item.name}.png")
    found = opened(data) if data is not None and data.endswith(_END) else None
    if found is None:
        return None
    image, about = found
    wanted = {"item": item, "versions": dict(versions), "pixels": pixels_of(image)}
    if any(about[name] != value for name, value in wanted.items()):
        return None
    record = place.get(f"{RECORDS}/{item.name}.safetensors") if about["record"] else None
    if about["record"] != (record and hashlib.sha256(record).hexdigest()):
        return None
    told = about | {"item": item.model_dump(mode="json", exclude_defaults=True)}
    place.put(f"{PICTURES}/{item.name}.json", _text(told))
    return _made(item, about, 0.0, 0.0)


def opened(data: bytes) -> tuple[Image.Image, dict[str, Any]] | None:
    """A picture, and what it tells about itself; None if it cannot be read or is none of a job."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            about = json.loads(told_by(picture) or "")
        about["item"] = Item.model_validate(about["item"])
        lists = [about[name] for name in ("batch", "losses", "refinements")]
        known = about.keys() >= {"versions", "record", "pixels"}
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, RecursionError):
        return None
    except Image.DecompressionBombError:
        return None
    return (picture, about) if known and all(type(each) is list for each in lists) else None


def is_there(place: Place, made: Made, names: Mapping[str, set[str]]) -> bool:
    """Whether the files of a row are; a picture in a folder also to its end. What is damaged in
    its middle is found by ``is_whole``."""
    for name in (made.file, made.file and made.file[:-3] + "json", made.record):
        if name is None:
            continue
        folder, _, file = name.rpartition("/")
        if file not in names[folder]:
            return False
    path = place.local / (made.file or "")
    return not path.is_file() or _ends(path)


def is_whole(place: Place, made: Made) -> bool:
    """Whether a picture and its record are what was written, by their hashes."""
    data = place.get(made.file or "")
    found = opened(data) if data is not None else None
    if found is None or found[1]["item"] != made.item or pixels_of(found[0]) != made.pixels:
        return False
    record = place.get(made.record) if made.record else None
    return bool(found[1]["record"] == (record and hashlib.sha256(record).hexdigest()))


def _ends(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - len(_END)))
        return file.read() == _END


def pixels_of(image: Image.Image) -> str:
    """The SHA-256 of a picture itself, whatever file it is in."""
    shape = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(shape + image.tobytes()).hexdigest()


def _text(about: Mapping[str, Any]) -> bytes:
    return json.dumps(about, indent=1).encode()


def _stored(maps: AttentionMaps) -> bytes:
    """The file of a record."""
    with TemporaryDirectory() as folder:
        file = save_maps(maps, Path(folder) / "a.safetensors", encoding="float16")
        return _ordered(file.read_bytes())


def _ordered(data: bytes) -> bytes:
    """The same file, the texts of its header in order: safetensors puts them in any."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _made(item: Item, about: Mapping[str, Any], seconds: float, memory: float) -> Made:
    record = f"{RECORDS}/{item.name}.safetensors" if about["record"] else None
    return Made(
        item=item,
        file=f"{PICTURES}/{item.name}.png",
        pixels=about["pixels"],
        record=record,
        losses=tuple(about["losses"]),
        refinements=tuple(about["refinements"]),
        seconds=seconds,
        memory=memory,
    )
