"""Whether arrays that are there were exported by this package."""

import json
from pathlib import Path
from zipfile import BadZipFile, ZipFile


def is_npz(path: Path) -> bool:
    try:
        with ZipFile(path) as archive:
            return "attncontrol.npy" in archive.namelist()
    except (OSError, ValueError, BadZipFile, NotImplementedError):
        return False


def is_tree(folder: Path) -> bool:
    """By the attributes of its root, if there are only metadata and chunks in it."""
    try:
        root = json.loads((folder / "zarr.json").read_text("utf-8"))
        made = "attncontrol" in root["attributes"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    files = (each.relative_to(folder) for each in folder.rglob("*") if not each.is_dir())
    return made and all(file.name == "zarr.json" or "c" in file.parts for file in files)
