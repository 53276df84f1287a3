"""Files are whole or not there, and what is not ours stays."""

import errno
import os
import subprocess
import sys

import pytest

from attncontrol import writing
from attncontrol.errors import WriteError
from attncontrol.writing import append, locked, whole


def mine(path):
    return path.is_dir() or path.read_text().startswith("mine")


def test_a_file_appears_whole_in_folders_that_are_made(tmp_path):
    file = tmp_path / "a" / "b.txt"
    with whole(file) as part:
        assert part.suffix == ".txt"
        assert part.parent == file.parent
        part.write_text("mine")
        assert not file.exists()
    assert file.read_text() == "mine"
    assert os.listdir(file.parent) == ["b.txt"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, fault):
    file = tmp_path / "a.txt"
    file.write_text("mine, before")
    wanted = pytest.raises(KeyboardInterrupt if fault is KeyboardInterrupt else WriteError)
    with wanted as raised, whole(file, mine) as part:
        part.write_text("half")
        raise fault
    assert file.read_text() == "mine, before"
    assert os.listdir(tmp_path) == ["a.txt"]
    if fault is not KeyboardInterrupt:
        assert "a.txt was not written: No space left" in str(raised.value)


def test_a_full_disk_is_one_error_and_no_half_file(tmp_path):
    script = """
import resource, signal, sys
from attncontrol.writing import whole
from attncontrol.errors import WriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole(sys.argv[1]) as part:
        part.write_bytes(b"0" * 5000)
except WriteError as error:
    print(error)
"""
    file = tmp_path / "a.bin"
    run = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    assert "a.bin was not written: File too large" in run.stdout
    assert os.listdir(tmp_path) == []


def test_only_what_is_ours_is_replaced_and_it_is_named(tmp_path, caplog):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text("mine")
    theirs.write_text("a letter")
    with whole(ours, mine) as part:
        part.write_text("mine, new")
    assert ours.read_text() == "mine, new"
    assert f"{ours} is replaced" in caplog.text
    with pytest.raises(WriteError, match=r"theirs exists and was not made"), whole(theirs, mine):
        raise AssertionError("the block began")
    assert theirs.read_text() == "a letter"


@pytest.mark.parametrize("out", ["in.txt", "sub/../in.txt", "link.txt", "."])
def test_inputs_are_never_written_over(tmp_path, out):
    (tmp_path / "in.txt").write_text("mine")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "in.txt")
    with (
        pytest.raises(WriteError, match="written over the input"),
        whole(tmp_path / out, mine, inputs=[tmp_path / "in.txt"]),
    ):
        raise AssertionError("the block began")


def test_a_folder_takes_the_place_of_ours_and_of_an_empty_one(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for content in ("first", "second"):
        with whole(folder, lambda path: (path / "mark").exists()) as part:
            part.mkdir()
            (part / "mark").write_text(content)
        assert (folder / "mark").read_text() == content
    assert os.listdir(tmp_path) == ["maps"]
    (folder / "mark").unlink()
    (folder / "photo.png").write_text("theirs")
    with pytest.raises(WriteError), whole(folder, lambda path: (path / "mark").exists()):
        raise AssertionError("the block began")
    assert os.listdir(folder) == ["photo.png"]


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    file = tmp_path / "a.txt"
    script = """
import os, signal, sys
from attncontrol.writing import whole
with whole(sys.argv[1]) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script, str(file)], check=False)
        assert len(os.listdir(tmp_path)) == 1
    with whole(file) as other, whole(file) as part:  # what runs is not touched
        other.write_text("first")
        part.write_text("second")
    assert os.listdir(tmp_path) == ["a.txt"]
    assert file.read_text() == "first"


@pytest.mark.parametrize("name", ["a" * 250, "ä" * 120 + ".safetensors"])
def test_a_name_as_long_as_the_system_takes(tmp_path, name):
    with whole(tmp_path / name) as part:
        part.write_text("done")
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(WriteError, match="too long"), whole(tmp_path / ("b" * 300)):
        pass


@pytest.mark.parametrize("room", [0, 3, 7])
def test_a_line_is_whole_or_taken_back(tmp_path, room):
    script = """
import resource, signal, sys
from pathlib import Path
from attncontrol.writing import append
from attncontrol.errors import WriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = 6 + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    append(Path(sys.argv[1]), b"second")
except WriteError as error:
    print(error)
"""
    file = tmp_path / "a" / "lines.csv"
    append(file, b"first\n")
    run = subprocess.run(
        [sys.executable, "-c", script, str(file), str(room)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if room < 6:
        assert "lines.csv did not grow: File too large; all before is kept" in run.stdout
        assert file.read_bytes() == b"first\n"
    else:
        assert file.read_bytes() == b"first\nsecond"


def test_folders_change_places_in_one_step(tmp_path, monkeypatch):
    for swapped in (writing._swapped, lambda *_: False):
        monkeypatch.setattr(writing, "_swapped", swapped)
        for content in ("first", "second"):
            with whole(tmp_path / "maps") as part:
                part.mkdir()
                (part / content).touch()
            assert os.listdir(tmp_path / "maps") == [content]
        assert os.listdir(tmp_path) == ["maps"]


def test_a_locked_folder_is_left_as_it_was(tmp_path):
    folder = tmp_path / "a" / "steps"
    with locked(folder):
        assert all(map(writing.is_passing, os.listdir(folder)))
        with whole(folder / "step.bin") as part:
            part.touch()
            assert all(map(writing.is_passing, os.listdir(folder)))
    assert os.listdir(folder) == ["step.bin"]
    with locked(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()
