"""The one way by which files are written: whole or not at all, and never over what is not ours.

A file or folder is made beside its place under a hidden name and takes the place when it is
complete. A process that is killed, or a disk that is full, leaves nothing half under a final name,
and what was there before is still there. Leftovers of killed processes are removed by the next one
that writes the same name. Files that grow by lines get each addition in one write.
"""

import ctypes
import hashlib
import logging
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NewType

from filelock import FileLock, Timeout

from attncontrol.checks.arguments import brief
from attncontrol.errors import WriteError

Unfinished = NewType("Unfinished", Path)
"""What ``whole`` gives: nothing else is written to."""

_LOCK = ".lock"
_PASSING = re.compile(r"\.[0-9a-f]{8}-[0-9a-f]{4}-\d+-[0-9a-f]{8}\.part.*")
_DAY = 86400.0  # seconds
_LOG = logging.getLogger(__name__)


@contextmanager
def whole(
    path: Path | str,
    ours: Callable[[Path], bool] | None = None,
    *,
    inputs: Iterable[Path | str] = (),
) -> Iterator[Unfinished]:
    """Gives a path to write to, a file or a new folder, which becomes ``path`` when the block ends.

    What is at ``path`` already is replaced only if ``ours`` says that this package made it, and
    named in a warning of the logger first; without ``ours`` the caller knows that its folder is.
    ``inputs`` are what is read: none of them is written over. Folders above are made. The suffix is
    that of ``path``. Raises WriteError, also for every OSError inside the block; ``path`` is then
    as before.

        with whole("run.csv", ours=is_table) as part:
            part.write_text(table)
    """
    final = Path(path).resolve()
    try:
        require_free(final, ours, inputs=inputs)
        if ours is not None and final.exists() and not _is_empty_folder(final):
            _LOG.warning("%s is replaced", final)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = _beside(final)
        try:
            yield Unfinished(part)
            _take_place(part, final)
        finally:
            _remove(part)
    except WriteError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"{brief(path)} was not written: {reason}; all is as before") from error


def require_free(
    path: Path | str,
    ours: Callable[[Path], bool] | None = None,
    *,
    inputs: Iterable[Path | str] = (),
) -> None:
    """Raises WriteError where ``whole`` would: before anything is computed."""
    final = Path(path).resolve()
    for each in map(Path, inputs):
        read = each.resolve()
        if final == read or final in read.parents:
            raise WriteError(f"{final} would be written over the input {each}; choose another name")
    try:
        if not final.exists() or ours is None or _is_empty_folder(final):
            return
        if not (final.is_dir() or final.is_file()) or not ours(final):
            raise WriteError(
                f"{final} exists and was not made by this command; choose another name or remove it"
            )
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"{brief(path)} cannot be written: {error.strerror or error}") from error


def put(path: Path, data: bytes, ours: Callable[[Path], bool] | None = None) -> None:
    """Writes a file with ``whole``, unless it is that already."""
    if not (path.is_file() and path.read_bytes() == data):
        with whole(path, ours) as part:
            part.write_bytes(data)


def append(path: Path, data: bytes) -> None:
    """At the end of a file, which is made, in one write, which other processes cannot break. Raises
    WriteError; what was written of ``data`` is then taken back, unless another process has written
    behind it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            written = 0
            try:
                while written < len(data):  # a disk that is full takes a part first
                    written += file.write(data[written:]) or 0
            except OSError:
                if os.fstat(file.fileno()).st_size == file.tell():
                    file.truncate(file.tell() - written)
                raise
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"{brief(path)} did not grow: {reason}; all before is kept") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes a folder and keeps other processes out of it; one that is made here and stays empty is
    removed. Raises WriteError."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(
            f"{brief(folder)} cannot be written ({error.strerror or error})"
        ) from error
    try:
        yield
    finally:
        lock.release()
        (folder / _LOCK).unlink(missing_ok=True)
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def is_passing(name: str) -> bool:
    """Of a file that ``whole`` or ``locked`` made and that is gone when they end."""
    return name == _LOCK or bool(_PASSING.fullmatch(name))


def remove(files: Iterable[Path]) -> None:
    """Those that the caller knows as its own."""
    for file in files:
        file.unlink(missing_ok=True)


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise WriteError(f"another run writes into {folder}; choose another folder") from None
    except NotImplementedError:  # this file system has no locks
        _LOG.warning("%s cannot be locked; write into it once at a time", folder)
    return lock


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _beside(final: Path) -> Path:
    """A name short enough wherever that of ``final`` is."""
    name = hashlib.sha256(final.name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:4]
    for leftover in final.parent.glob(f".{name}-*.part*"):
        with suppress(FileNotFoundError, ValueError):  # removed by another process, another name
            _, host, process, _ = leftover.name.split(".part")[0].split("-")
            old = time.time() - leftover.lstat().st_mtime > _DAY
            if old or (host == machine and not _runs(int(process))):
                _remove(leftover)
    token = f"{machine}-{os.getpid()}-{secrets.token_hex(4)}"
    return final.parent / f".{name}-{token}.part{final.suffix[:16]}"


def _runs(process: int) -> bool:
    """On this machine."""
    if os.name != "posix":  # elsewhere a question would be a signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to someone else, or the system cannot tell
        return True
    return True


def _take_place(part: Path, final: Path) -> None:
    if not final.is_dir():
        os.replace(part, final)
    elif _swapped(part, final):
        _remove(part)
    else:  # a folder cannot be renamed over one that holds something
        old = _beside(final)
        final.rename(old)
        part.rename(final)
        _remove(old)


def _swapped(one: Path, other: Path) -> bool:
    """In one step, where the system can: Linux."""
    try:
        swap = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
