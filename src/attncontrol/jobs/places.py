"""Where a job is kept: a folder, or what fsspec names, such as ``s3://bucket/runs/today``."""

import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

from attncontrol.errors import PackageError, WriteError
from attncontrol.writing import put


class Place(ABC):
    """Files by their names, "pictures/a.png"."""

    local: Path
    """A folder of this machine: of the place itself, or for what cannot lie there."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Whole or not at all. Raises WriteError."""

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """None if there is no such file."""

    @abstractmethod
    def names(self, folder: str) -> set[str]:
        """Of the files in a folder, "" for the whole."""

    @abstractmethod
    def shown(self, name: str = "") -> str:
        """For messages."""


class Folder(Place):
    def __init__(self, path: Path):
        self.local = path

    def put(self, name: str, data: bytes) -> None:
        put(self.local / name, data)

    def get(self, name: str) -> bytes | None:
        try:
            return (self.local / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def names(self, folder: str) -> set[str]:
        path = self.local / folder
        return {each.name for each in path.iterdir()} if path.is_dir() else set()

    def shown(self, name: str = "") -> str:
        return str(self.local / name)


class Store(Place):
    """Of fsspec. What is not there whole is not there: such stores show a file when it is
    complete, and of others the hash is looked at."""

    def __init__(self, system: Any, root: str, url: str):
        self._system, self._root, self._url = system, root.rstrip("/"), url.rstrip("/")
        self.local = Path(tempfile.mkdtemp(prefix="attncontrol-"))
        weakref.finalize(self, shutil.rmtree, self.local, ignore_errors=True)

    def put(self, name: str, data: bytes) -> None:
        path = f"{self._root}/{name}"
        try:
            with suppress(NotImplementedError):
                self._system.mkdirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, data)
        except Exception as error:  # as the store has it
            raise WriteError(f"{self.shown(name)} was not written: {error}") from error

    def get(self, name: str) -> bytes | None:
        try:
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> set[str]:
        path = f"{self._root}/{folder}".rstrip("/")
        self._system.invalidate_cache()
        try:
            return {each.rpartition("/")[2] for each in self._system.ls(path, detail=False)}
        except FileNotFoundError:
            return set()

    def shown(self, name: str = "") -> str:
        return f"{self._url}/{name}".rstrip("/")


def is_url(text: str) -> bool:
    return "://" in text


def place_of(out: Path | str) -> Place:
    """Raises PackageError where fsspec, or what it needs for this kind of store, is missing."""
    if not is_url(str(out)):
        return Folder(Path(out))
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(str(out))
    except ImportError as error:
        raise PackageError(
            f"{out}: {error}; pip install 'attncontrol[stores]', and what fsspec asks for"
        ) from error
    except ValueError as error:
        raise WriteError(f"{out}: {error}") from error
    if str(out).startswith("file://"):
        return Folder(Path(root))
    return Store(system, root, str(out))
