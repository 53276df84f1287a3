"""Which pictures of a job are made in one call."""

import pytest
from pydantic import ValidationError

from attncontrol.jobs.batches import plan
from attncontrol.jobs.estimate import of_folder
from attncontrol.jobs.item import Adapter, Item
from attncontrol.jobs.job import Job
from tests.kit import jobs


def rows(job, size):
    """Of every batch what its pictures are told by."""
    return [[(i.prompt, i.method, i.seed) for i in batch.items] for batch in plan(job, size)]


def test_pictures_of_a_kind_are_made_together_in_order():
    items = [
        Item(prompt=f"cat {n}", method=method, seed=n)
        for n in range(5)
        for method in ("plain", "auto")
    ]
    job = Job.of(items)
    assert rows(job, 3) == [
        [(f"cat {n}", "plain", n) for n in range(3)],
        [(f"cat {n}", "auto", n) for n in range(3)],
        [(f"cat {n}", "plain", n) for n in (3, 4)],
        [(f"cat {n}", "auto", n) for n in (3, 4)],
    ]
    assert [batch.made for batch in plan(job, 3)] == [(0, 1, 2)] * 2 + [(0, 1)] * 2
    assert plan(job, 3) == plan(Job.of(items), 3)
    assert [len(batch) for batch in rows(job, 1)] == [1] * 10


def test_what_a_call_has_once_keeps_pictures_apart():
    one = {"prompt": "a cat", "method": "conform"}
    others = [
        {"model": "sprites-flux"}, {"dtype": "float16"}, {"height": 64}, {"steps": 9},
        {"guidance": 2}, {"negative": "rain"}, {"lora": [Adapter(path="a/b")]},
        {"parameters": {"temperature": 1}}, {"step_size": "6%"}, {"heads": [("a", 1)]},
        {"record": ["cat"]}, {"method": "auto"},
    ]  # fmt: skip
    items = [Item(**one), *(Item(**(one | other)) for other in others)]
    assert sorted(len(batch.items) for batch in plan(Job.of(items), 99)) == [1] * 13


def test_a_prompt_has_the_same_words_in_a_call():
    cat = {"prompt": "a cat and a dog", "method": "auto"}
    items = [
        Item(**cat, words=[["cat"]]),
        Item(**cat, words=[["dog"]]),
        Item(**cat, words=[["cat"]], seed=1),
        Item(prompt="a fox", method="auto"),
        Item(**cat, words=[["dog"]], seed=1),
    ]
    words = [[item.words for item in batch.items] for batch in plan(Job.of(items), 9)]
    assert words == [[[["cat"]], [["cat"]], None], [[["dog"]], [["dog"]]]]


def test_a_model_is_loaded_once():
    lora = [Adapter(path="a/b")]
    items = [
        Item(prompt=f"cat {n}", model=model, lora=adapters)
        for n in range(2)
        for model in ("sprites", "sprites-flux")
        for adapters in ([], lora)
    ]
    loaded = [(b.items[0].model, len(b.items[0].lora)) for b in plan(Job.of(items), 1)]
    assert loaded == [
        (model, count)
        for model in ("sprites", "sprites-flux")
        for count in (0, 1)
        for _ in range(2)
    ]


def test_edits_share_their_source():
    edits = [
        Item(prompt=prompt, source="a cat", method=method, seed=seed)
        for method in ("p2p", "replace")
        for seed in (0, 1)
        for prompt in ("a dog", "a fox")
    ]
    made = plan(Job.of(edits), 6).batches
    assert [[item.prompt for item in batch.items] for batch in made] == [
        ["a cat", "a dog", "a fox"] * 2
    ] * 2
    assert [batch.sources for batch in made] == [(None, 0, 0, None, 3, 3)] * 2
    assert [batch.made for batch in made] == [(0, 1, 2, 3, 4, 5), (1, 2, 4, 5)]
    assert [len(batch.own) for batch in made] == [6, 4]
    small = plan(Job.of(edits), 1).batches
    assert [batch.sources for batch in small] == [(None, 0)] * 8
    assert sum(len(batch.own) for batch in small) == 10


def test_a_thing_is_moved_in_a_call_of_its_own():
    moved = [
        Item(prompt="a cat", source="a cat", method="move", move=("cat", 0.25, 0), seed=seed)
        for seed in (0, 1)
    ]
    assert [batch.sources for batch in plan(Job.of(moved), 8)] == [(None, 0)] * 2


def test_a_copy_of_an_item_has_a_mark_and_a_source_of_its_own():
    item = Item(prompt="a dog", source="a cat", method="p2p", parameters={"a": [1]})
    before = item.mark, item.original.prompt
    other = item.model_copy(update={"source": "a frog", "seed": 2})
    assert (other.mark, other.original) == (
        Item(prompt="a dog", source="a frog", seed=2, method="p2p", parameters={"a": [1]}).mark,
        Item(prompt="a frog", seed=2),
    )
    assert (item.mark, item.original.prompt) == before
    assert item.model_copy() == item
    deep = item.model_copy(deep=True)
    deep.parameters["a"].append(2)
    assert item.parameters == {"a": [1]}
    with pytest.raises(ValidationError):
        item.model_copy(update={"seed": -1})


def test_what_is_left_of_a_folder(tmp_path):
    """Neither what was found there nor, unless it is tried again, what failed."""
    items = [Item(prompt="a cat", seed=seed) for seed in range(4)]
    known = [
        jobs.made(items[0], folder=tmp_path, seconds=2.0),
        jobs.made(items[1], folder=tmp_path, seconds=0.0),
        jobs.made(items[2], file=None, pixels=None, error="no"),
    ]
    folder, job = jobs.job(tmp_path, known), Job.of(items)
    for again, left in ((False, 1), (True, 2)):
        estimate = of_folder(job, folder, again)
        assert (estimate.left, estimate.seconds, estimate.measured) == (left, 2.0 * left, 1)
