"""Whether arrays that are there were exported by this package."""

import json
import re
from pathlib import Path
from zipfile import BadZipFile, ZipFile

_OF_TREE = r"(.+/)?(zarr\.json|c(/\d+)*)"  # metadata and chunks


def is_npz(path: Path) -> bool:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
            return "attncontrol.npy" in names and all(name.endswith(".npy") for name in names)
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
    return made and all(re.fullmatch(_OF_TREE, file.as_posix()) for file in files)
