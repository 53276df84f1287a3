"""Jobs whose processes die of an item: its neighbours are made."""

from collections import deque
from multiprocessing import Pipe

import pytest

from attncontrol.jobs import deaths, making
from attncontrol.jobs.deaths import Deaths
from attncontrol.jobs.engine import run
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.processes import _Process, _try_again
from attncontrol.jobs.work import Task, halves


def items(prompts, **rest):
    return [Item(prompt=prompt, steps=1, **rest) for prompt in prompts]


def test_a_batch_that_dies_again_is_halved_down_to_the_item():
    """Two deaths of the whole, one of each half that has it; what was not begun waits."""
    rows = tuple(items(["a cat", "a dog", "a frog", "a car"]))
    whole = Task(3, rows, frozenset(row.name for row in rows))
    other = Task(4, (*items(["a tree"]),), frozenset({"tree"}))
    waiting, suspects, told, tried, made = deque([whole, other]), set(), [], [], []
    while waiting:
        given = deque([waiting.popleft()])
        tried.append(len(given[0].rows))
        if any("frog" in row.prompt for row in given[0].rows):
            if waiting:
                given.append(waiting.popleft())  # ahead
            with pytest.warns(UserWarning, match="a worker died; 1 batches that were being made"):
                _try_again(_Process(None, Pipe()[0], given, 1), waiting, suspects, told.append)
        else:
            made += given[0].wanted
    assert tried == [4, 4, 2, 2, 1, 1, 1]
    ((lost,),) = [done.made for done in told]
    assert (lost.item, lost.file) == (rows[2], None)
    assert "was killed, again and again" in lost.error
    assert sorted(made) == sorted({*whole.wanted, "tree"} - {rows[2].name})


def test_the_one_that_is_made_is_to_blame_and_not_what_is_kept_beside_it():
    tasks = [Task(k, (item,), frozenset({item.name})) for k, item in enumerate(items("abc"))]
    waiting, suspects = deque(tasks[2:]), set()
    with pytest.warns(UserWarning, match="2 batches that were being made are made again"):
        _try_again(_Process(None, Pipe()[0], deque(tasks[:2]), 2), waiting, suspects, [].append)
    assert ([*waiting], suspects) == (tasks, {tasks[1].names})


def test_halves_keep_sources_and_ask_for_each_picture_once():
    (cat, dog, frog) = plain = items(["a cat", "a dog", "a frog"])
    edits = items(["a red cat", "a blue cat"], source="a cat", method="p2p")
    rows = (cat, *edits, dog, frog)
    wanted = frozenset(row.name for row in rows)
    first, second = halves(Task(7, rows, wanted))
    assert (first.rows, second.rows) == ((cat, *edits), (dog, frog))
    assert first.wanted | second.wanted == wanted
    (one, other) = halves(first)
    assert (one.rows, other.rows) == ((cat, edits[0]), (cat, edits[1]))
    assert (one.wanted, other.wanted) == ({cat.name, edits[0].name}, {edits[1].name})
    assert halves(one) == ()
    (left,) = halves(Task(7, tuple(plain), frozenset({frog.name})))
    assert left == Task(7, (frog,), frozenset({frog.name}))


def test_a_run_killed_for_memory_halves_the_batch_when_it_goes_on(model, tmp_path, monkeypatch):
    """The item that is to blame is given up in the end; a kill for another reason changes
    nothing."""
    job = Job.of(items(["a cat", "a dog", "a frog"], model=model))
    paint, calls, count = making.paint, [], [3]
    monkeypatch.setattr(deaths, "kills", lambda: ["boot", str(count[0])])

    def killed(pipe, rows):
        calls.append(len(rows))
        if any("frog" in row.prompt for row in rows):
            monkeypatch.setattr(Deaths, "end", lambda *_: None)  # it is not reached
            count[0] += len(calls) > 1
            raise KeyboardInterrupt
        return list(paint(pipe, rows))

    monkeypatch.setattr(making, "paint", killed)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(job, tmp_path, batch=4)
    monkeypatch.undo()
    monkeypatch.setattr(deaths, "kills", lambda: ["boot", str(count[0])])
    assert calls == [3, 3, 2, 1]
    made = run(job, tmp_path, batch=4)
    assert [each.error is None for each in made] == [True, True, False]
    assert not (tmp_path / deaths.NAME).exists()
    assert [each.error for each in run(job, tmp_path, batch=4, retry_failed=True)] == [None] * 3


def test_deaths_of_another_boot_are_not_counted(tmp_path, monkeypatch):
    (task,) = [Task(0, rows := (*items("ab"),), frozenset(row.name for row in rows))]
    monkeypatch.setattr(deaths, "kills", lambda: ["boot", "1"])
    assert [*Deaths.read(tmp_path).watched([task])] == [task]
    for now, died in ([["boot", "1"], False], [["next", "2"], False], [[], False],
                      [["boot", "2"], True]):  # fmt: skip
        monkeypatch.setattr(deaths, "kills", lambda now=now: now)
        found, given_up = Deaths.read(tmp_path).split([task])
        assert ([len(each.rows) for each in found], given_up) == ([1, 1] if died else [2], [])
