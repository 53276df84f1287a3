"""Jobs: what is made of one, how it goes on, and what becomes of what fails."""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
from functools import cache, partial

import pytest
import torch
from PIL import Image

from attncontrol.errors import ResultsError, SettingError, WriteError
from attncontrol.jobs import engine, index, making, places, work
from attncontrol.jobs.engine import run
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.keeping import pixels_of
from attncontrol.jobs.repeat import earlier, repeat

CAT, DOG = "a red cat and a frog", "a red dog and a frog"


def items(model, seeds=range(5), **rest):
    return [Item(prompt=CAT, seed=seed, model=model, steps=1, **rest) for seed in seeds]


@pytest.fixture(scope="module", autouse=True)
def _loaded_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "opened", cache(making.opened))
        yield


@pytest.fixture(scope="module")
def job(model):
    """Five plain pictures in two batches of four, and one that is edited from the first."""
    edited = Item(prompt=DOG, source=CAT, model=model, steps=1, method="p2p", record=["dog"])
    return Job.of([*items(model), edited])


@pytest.fixture(scope="module")
def finished(job, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    seen = []
    made = run(job, out, batch=4, progress=lambda *told: seen.append(told))
    assert [each.item for each in made] == list(job.items)
    assert [each.error for each in made] == [None] * 6
    assert (seen[0], seen[-1]) == ((0, 6), (6, 6))
    return out


def contents(out):
    """All files, and the index but for seconds."""
    found = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != index.NAME
    }
    with sqlite3.connect(out / index.NAME) as table:
        rows = table.execute("SELECT * FROM pictures ORDER BY number").fetchall()
    return found, [(*row[:8], row[9]) for row in rows]


def test_a_folder_holds_all_that_is_needed_to_make_its_pictures_again(finished, job):
    files, rows = contents(finished)
    names = {f"pictures/{item.name}.{kind}" for item in job.items for kind in ("png", "json")}
    edited = next(item for item in job.items if item.source)
    assert files.keys() == {*names, f"records/{edited.name}.safetensors", "job.json"}
    assert [row[:2] for row in rows] == [(k, item.name) for k, item in enumerate(job.items)]
    told = json.loads(files[f"pictures/{edited.name}.json"])
    with Image.open(finished / f"pictures/{edited.name}.png") as picture:
        assert json.loads(picture.info["attncontrol"]) == told
        assert told["pixels"] == pixels_of(picture)
    assert told["batch"] == [2, 1]  # its source and itself
    assert told["item"] == edited.model_dump(mode="json", exclude_defaults=True)
    assert index.read(finished)[0].pixels == rows[0][4]


def test_a_job_that_is_complete_makes_nothing(finished, job, monkeypatch):
    monkeypatch.setattr(making, "opened", None)  # nothing is loaded
    before = contents(finished)
    assert len(run(job, finished, batch=4)) == 6
    assert contents(finished) == before


@pytest.mark.parametrize("gone", ["index", "picture", "json", "record", "half", "pixels"])
def test_what_is_missing_or_broken_is_made_again_as_it_was(finished, job, tmp_path, gone):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    name, edited = job.items[1].name, next(item for item in job.items if item.source).name
    picture = out / "pictures" / f"{name}.png"
    if gone == "index":
        (out / index.NAME).unlink()
    elif gone == "record":
        (out / "records" / f"{edited}.safetensors").unlink()
    elif gone == "half":
        picture.write_bytes(picture.read_bytes()[:-9])
    elif gone == "pixels":  # of a picture that has no row, since its process was killed
        (out / index.NAME).unlink()
        with Image.open(picture) as old:
            text = old.info["attncontrol"]
        shutil.copy(out / "pictures" / f"{job.items[2].name}.png", picture)
        assert text not in picture.read_bytes().decode("latin-1")
    else:
        (out / "pictures" / f"{name}.{'png' if gone == 'picture' else 'json'}").unlink()
    run(job, out, batch=4)
    assert contents(out) == contents(finished)


def test_a_killed_process_leaves_what_goes_on_to_the_same(finished, job, tmp_path):
    for moment in (0.0, 0.05, 0.2):
        child = os.fork()
        if child == 0:
            run(job, tmp_path / "run", batch=4, progress=partial(timer, moment))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    run(job, tmp_path / "run", batch=4)
    assert contents(tmp_path / "run") == contents(finished)


def timer(seconds, done, _):
    """Kills this process in that time after something is done."""
    if done or not seconds:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def test_another_job_batch_or_version_is_refused_in_one_error(finished, job, monkeypatch):
    with pytest.raises(ResultsError, match="batch 4 there, 3 here: its pictures would not be"):
        run(job, finished, batch=3)
    with pytest.raises(ResultsError, match="another job of 6 items, not 5"):
        run(Job.of(items(job.items[0].model)), finished, batch=4)
    monkeypatch.setattr(engine, "versions", lambda: {"torch": "0.1"})
    with pytest.raises(ResultsError, match=r"torch .* there, 0\.1 here"):
        run(job, finished, batch=4)


def test_a_job_that_grew_goes_on_and_leaves_what_is_there(finished, job, tmp_path):
    """The new items are in batches of their own, so that all can be made again bit by bit."""
    out, model = tmp_path / "run", job.items[0].model
    shutil.copytree(finished, out)
    other = Item(prompt="a car", source=CAT, seed=1, model=model, steps=1, method="p2p")
    grown = Job.of([Item(prompt=CAT, seed=7, model=model, steps=1), *job.items, other])
    made = run(grown, out, batch=4)
    assert [each.item for each in made] == list(grown.items)
    before, after = contents(finished), contents(out)
    assert {name: after[0][name] for name in before[0] if name != "job.json"} == {
        name: data for name, data in before[0].items() if name != "job.json"
    }
    assert after[1][:6] == before[1]
    new = [grown.items[0], other]
    assert [row[1] for row in after[1][6:]] == [item.name for item in new]
    for item in new:
        again = earlier(out / "pictures" / f"{item.name}.png")
        assert (again.alone, repeat(again).same) == (False, True)
    assert run(grown, out, batch=4) == made
    few = Job.of(new)
    with pytest.raises(ResultsError, match="another job of 8 items, not 3: 5 of them are not in"):
        run(few, out, batch=4)
    assert [each.item for each in run(few, out, batch=4, beside=True)] == list(few.items)


def test_a_damaged_picture_is_found_on_request(finished, job, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    edited = next(item for item in job.items if item.source)
    for file in (f"pictures/{job.items[1].name}.png", f"records/{edited.name}.safetensors"):
        data = bytearray((out / file).read_bytes())
        data[len(data) // 2] ^= 1
        (out / file).write_bytes(data)
    run(job, out, batch=4)
    assert contents(out) != contents(finished)
    run(job, out, batch=4, verify=True)
    assert contents(out) == contents(finished)
    assert "2 pictures of the index not whole, such as a-red" in caplog.text
    caplog.clear()
    run(job, out, batch=4, verify=True)
    assert caplog.text == ""


def test_a_folder_of_something_else_is_left_alone(job, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WriteError, match=r"holds mine\.txt and no job"):
        run(job, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_fails_is_kept_apart_and_made_again_on_request(model, tmp_path, monkeypatch):
    some = items(model)
    some[2] = Item(prompt=CAT, seed=9, model=model, steps=1, lora=[])
    job, paint, calls = Job.of(some), making.paint, []

    def failing(pipe, rows):
        calls.append([row.seed for row in rows])
        if any(row.seed == 9 for row in rows):
            raise ValueError("nine")
        return paint(pipe, rows)

    monkeypatch.setattr(making, "paint", failing)
    made = run(job, tmp_path / "run", batch=5)
    assert calls == [[0, 1, 9, 3, 4], [0, 1, 9], [0, 1], [9], [3, 4]]
    assert [each.error for each in made] == [None, None, "ValueError: nine", None, None]
    assert (made[2].file, made[2].pixels) == (None, None)
    calls.clear()
    run(job, tmp_path / "run", batch=5)
    assert calls == []
    monkeypatch.setattr(making, "paint", paint)
    again = run(job, tmp_path / "run", batch=5, retry_failed=True)
    assert [each.error for each in again] == [None] * 5
    assert [each.pixels for each in again if each.item.seed != 9] == [
        each.pixels for each in made if each.item.seed != 9
    ]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_what_does_not_fit_into_memory_is_made_in_less(model, tmp_path, monkeypatch, error):
    paint, calls = making.paint, []

    def failing(pipe, rows):
        calls.append(len(rows))
        if len(rows) > 2:
            raise error
        return paint(pipe, rows)

    monkeypatch.setattr(making, "paint", failing)
    with pytest.warns(UserWarning, match="not enough memory for 4 pictures of plain together; fr"):
        made = run(Job.of(items(model, range(8))), tmp_path / "run", batch=4)
    assert calls == [4, 2, 2, 2, 2]  # the second batch begins with what fits
    assert [each.error for each in made] == [None] * 8


def test_a_full_disk_ends_with_what_was_made(model, tmp_path, monkeypatch):
    job, put = Job.of(items(model, range(4))), places.put
    full = job.items[2].name

    def failing(path, data, *rest):
        if full in path.name:
            raise WriteError(f"{path.name} was not written: No space left on device")
        put(path, data, *rest)

    monkeypatch.setattr(places, "put", failing)
    with pytest.raises(WriteError, match="No space left on device"):
        run(job, tmp_path / "run", batch=2)
    assert [each.item.seed for each in index.read(tmp_path / "run")] == [0, 1]
    monkeypatch.setattr(places, "put", put)
    assert len(run(job, tmp_path / "run", batch=2)) == 4


def test_ctrl_c_ends_after_the_batch(model, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    paint, calls = making.paint, []

    def interrupted(pipe, rows):
        calls.append(len(rows))
        os.kill(os.getpid(), signal.SIGINT)
        return paint(pipe, rows)

    monkeypatch.setattr(making, "paint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(Job.of(items(model, range(6))), tmp_path / "run", batch=2)
    assert calls == [2]
    assert [each.item.seed for each in index.read(tmp_path / "run")] == [0, 1]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_ends_at_once(model, tmp_path, monkeypatch):
    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not at once")

    monkeypatch.setattr(making, "paint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(Job.of(items(model, range(2))), tmp_path / "run", batch=2)
    with pytest.raises(ResultsError, match=r"has no index|^$"):
        assert index.read(tmp_path / "run") == []
        raise ResultsError("has no index")


def test_a_picture_is_made_again_bit_by_bit(finished, job, tmp_path):
    for item in (job.items[3], job.items[-1]):
        before = earlier(finished / "pictures" / f"{item.name}.png")
        assert (before.item, before.alone, before.others) == (item, False, ())
        found = repeat(before)
        assert (found.same, found.difference, found.changed) == (True, 0, False)
    alone = tmp_path / "alone.png"
    shutil.copy(finished / "pictures" / f"{job.items[3].name}.png", alone)
    before = earlier(alone)
    assert (before.alone, before.rows) == (True, (job.items[3],))
    assert repeat(before).difference <= 1
    with pytest.raises(ResultsError, match="does not tell how it was made"):
        Image.new("RGB", (8, 8)).save(alone)
        earlier(alone)


def test_workers_make_the_same_and_one_that_dies_costs_time_alone(job, tmp_path):
    run(job, tmp_path / "here", batch=1)
    killed = []

    def kill(done, _):
        if done and not killed:
            killed.append(multiprocessing.active_children()[0])
            killed[0].kill()

    with pytest.warns(UserWarning, match="a worker died; [12] batches that were being made"):
        run(job, tmp_path / "there", batch=1, workers=2, progress=kill)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_ranks_share_a_job(finished, job, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        made.append(len(run(job, tmp_path / "run", batch=4)))
    assert made[0] < made[1] == 6
    read = index.read(tmp_path / "run")
    assert [each.pixels for each in read] == [each.pixels for each in index.read(finished)]
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(SettingError, match="RANK=2 and WORLD_SIZE=2"):
        run(job, tmp_path / "run", batch=4)


def test_a_store_of_fsspec_holds_the_same(finished, job, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/run"
    made = run(job, url, batch=4)
    assert [each.pixels for each in made] == [each.pixels for each in index.read(finished)]
    assert index.read(url) == made
    files, rows = contents(finished)
    system = fsspec.filesystem("memory")
    for name, data in files.items():
        assert system.cat_file(f"/{tmp_path.name}/run/{name}") == data
    system.rm_file(f"/{tmp_path.name}/run/pictures/{job.items[0].name}.png")
    assert run(job, url, batch=4)[0].pixels == rows[0][4]
    assert len(run(job, f"file://{tmp_path}/there", batch=4)) == 6
    assert contents(tmp_path / "there") == (files, rows)
    with pytest.raises(SettingError, match="other workers cannot write there"):
        run(job, url, batch=4, workers=2)


def test_sheets_show_methods_by_seeds(finished, job, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    run(job, tmp_path / "run", batch=4, sheets=True)
    sheets = sorted(path.name for path in (tmp_path / "run" / "sheets").iterdir())
    assert [name.split("-")[:3] for name in sheets] == [["a", "red", "cat"], ["a", "red", "dog"]]


def test_an_index_that_is_none_is_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"has no index\.sqlite"):
        index.read(tmp_path)
    (tmp_path / index.NAME).write_text("no table")
    with pytest.raises(ResultsError, match="is no index of a job"):
        index.read(tmp_path)


def test_tasks_are_whole_batches_of_what_is_missing(job):
    from attncontrol.jobs.batches import plan

    (first, second) = tasks = engine.tasks_of(plan(job, 4), set())
    assert {name for task in tasks for name in task.wanted} == {item.name for item in job.items}
    left = engine.tasks_of(plan(job, 4), {*first.wanted} - {first.rows[0].name})
    assert left[0] == work.Task(first.number, first.rows, frozenset({first.rows[0].name}))
    assert left[1] == second
