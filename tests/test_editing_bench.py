"""``bench.editing``: its tasks, and its judge on true scenes."""

from itertools import islice

import pytest
from PIL import Image

from attncontrol.bench.edit_rows import judged
from attncontrol.bench.edit_tasks import KINDS, Task, tasks
from attncontrol.bench.editing import require_method
from attncontrol.errors import SettingError
from attncontrol.sprites.scenes import Scene, Thing, caption, render
from attncontrol.sprites.scorer import detect

CAT, BLUE, FROG = Thing("cat", "red"), Thing("cat", "blue"), Thing("frog")
HERE, THERE = (2, 2), (64, 64)


def painted(things, places):
    text, nouns, colors = caption(things)
    boxes = tuple((left, top, 60, 60) for left, top in places)
    return Image.fromarray(render(Scene(text, things, things, boxes, nouns, colors, (0, 0)))[0])


def row(kind, parts, before, after):
    pictures = painted(parts[0], before), painted(parts[1], after)
    found = tuple(detect(pictures))
    return judged(Task(kind, 0, *parts), pictures, found, method="here", seconds=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_are_the_same_everywhere(kind):
    first, second, third = islice(tasks(kind, [5, 6]), 3)
    assert [first.seed, second.seed, third.seed] == [5, 6, 5]
    assert first == next(tasks(kind, [5, 6]))
    assert len({first.prompt, second.prompt, third.prompt}) == 3
    assert first.prompt != first.to


def test_the_judge_tells_what_changed_and_what_stayed():
    recolour = ((CAT, FROG), (BLUE, FROG), CAT, BLUE, FROG)
    right = row("recolour", recolour, (HERE, THERE), (HERE, THERE))
    assert (right.success, right.shown, right.kept) == (1, 1, 1)
    assert right.iou > 0.9
    assert right.outside > 40
    moved = row("recolour", recolour, (HERE, THERE), (HERE, (64, 4)))
    assert (moved.success, moved.shown, moved.kept) == (0, 1, 0)
    assert moved.outside < 20
    same = row(
        "recolour", ((CAT, FROG), (CAT, FROG), CAT, BLUE, FROG), (HERE, THERE), (HERE, THERE)
    )
    assert (same.success, same.shown, same.kept) == (0, 0, 1)
    assert same.outside == 100


def test_things_that_come_and_go():
    add, remove = ((CAT,), (CAT, FROG), None, FROG, CAT), ((CAT, FROG), (CAT,), FROG, None, CAT)
    assert row("add", add, (HERE,), (HERE, THERE)).success == 1
    assert row("add", (add[0], *add[:1], *add[2:]), (HERE,), (HERE,)).shown == 0
    gone = row("remove", remove, (HERE, THERE), (HERE,))
    assert gone.success == 1
    assert gone.iou > 0.95
    assert (
        row("remove", (remove[0], *remove[:1], *remove[2:]), (HERE, THERE), (HERE, THERE)).shown
        == 0
    )


def test_methods_that_do_not_exist_are_refused():
    for name in ("same-seed", "sdedit@0.5", "auto+p2p@0.4", "layout+blend", "auto"):
        require_method(name)
    with pytest.raises(SettingError, match="no editing method 'p3p': p2p, replace"):
        require_method("p3p")
    with pytest.raises(SettingError, match=r"write sdedit@0.5"):
        require_method("sdedit")
