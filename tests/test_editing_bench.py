"""``bench.editing``: its tasks, its judge on true scenes, and its table."""

from dataclasses import replace
from itertools import islice

import numpy as np
from PIL import Image

from attncontrol.bench.editing import compared, judged, tasks
from attncontrol.sprites.scenes import Scene, Thing, caption, render

CAT, FROG = Thing("cat", "red"), Thing("frog")


def scene(things, places):
    text, nouns, colors = caption(things)
    boxes = tuple((left, top, 60, 60) for left, top in places)
    return Scene(text, things, things, boxes, nouns, colors, (0, 0))


def painted(*scenes):
    return [Image.fromarray(render(one)[0]) for one in scenes]


def test_tasks_are_the_same_everywhere():
    first, second, third = islice(tasks([5, 6]), 3)
    assert first.prompts == second.prompts != third.prompts
    assert (first.seed, second.seed, third.seed) == (5, 6, 5)
    assert len({len(prompt.split()) for prompt in first.prompts}) == 1
    (thing, rest), (recolored, _), (swapped, other) = first.source, *first.targets
    assert recolored.noun == thing.noun != swapped.noun
    assert recolored.color != thing.color == swapped.color
    assert rest == other
    assert [one.prompts for one in islice(tasks([5, 6]), 3)] == [
        one.prompts for one in (first, second, third)
    ]


def test_the_judge_tells_what_changed_and_what_stayed():
    here, there = ((2, 2), (64, 64)), ((2, 2), (64, 4))
    source = scene((CAT, FROG), here)
    blue, dog = (Thing("cat", "blue"), FROG), (Thing("dog", "red"), FROG)
    task = replace(next(tasks([0])), source=(CAT, FROG), targets=(blue, dog))
    right = judged(task, painted(source, scene(blue, here), scene(dog, here)))
    assert right[:, :3].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert right[:, 3].max() < 0.01
    wrong = judged(task, painted(source, source, scene(dog, there)))
    assert wrong[:, :3].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert wrong[0, 3] == 0
    assert wrong[1, 3] > 0.03


def test_gains_are_paired_and_their_intervals_over_tasks():
    plain = np.zeros((4, 2, 4))
    edited = plain.copy()
    edited[:3, :, 0] = 1
    edited[..., 3] = 0.25
    table = compared(plain, edited)
    assert table["shown"]["plain"] == 0
    assert table["shown"]["edited"] == table["shown"]["gain"] == 0.75
    assert table["shown"]["interval"] == [0.25, 1.0]
    assert table["difference"]["interval"] == [0.25, 0.25]
    assert table["kept"]["interval"] == [0, 0]
