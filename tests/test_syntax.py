"""Nouns and modifiers of prompts, against hand labels and the grammar of the benchmark."""

import re
from pathlib import Path

import pytest

from attncontrol.bench.prompts import benchmark_prompts
from attncontrol.errors import PackageError, WordError
from attncontrol.prompts import parser, reading, repairs
from attncontrol.prompts.syntax import analyse, nouns, tell_apart

REPAIRED = {"can", "sled", "leaves", "rose", "oven", "cockatoo"}
Sets = list[tuple[str, tuple[str, ...]]]


def sets_of(prompt: str) -> Sets:
    return [
        (entity.noun.text, tuple(word.text for word in entity.modifiers))
        for entity in analyse(prompt)
    ]


def labelled(name: str = "modifiers.txt") -> list[tuple[str, Sets]]:
    """The lines of a file in data."""
    rows = []
    for line in (Path(__file__).parent / "data" / name).read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        prompt, _, gold = line.partition(" => ")
        parts = [part.partition(":") for part in gold.split(" | ")]
        rows.append(
            (
                prompt,
                [(noun.strip(), tuple(sorted(modifiers.split()))) for noun, _, modifiers in parts],
            )
        )
    return rows


def test_hand_labelled_prompts():
    rows = labelled()
    assert len(rows) >= 500
    wrong = [
        prompt
        for prompt, gold in rows
        if [(n, tuple(sorted(m))) for n, m in sets_of(prompt)] != gold
    ]
    assert len(wrong) <= 0.05 * len(rows), wrong


@pytest.mark.parametrize(("prompt", "gold"), labelled("subjects.txt"))
def test_subjects_with_modifiers(prompt, gold):
    found, _ = tell_apart(prompt)
    assert [(e.noun.text, tuple(sorted(w.text for w in e.modifiers))) for e in found] == gold


def test_what_is_left_out_and_why():
    prompt = "a photo of a cat, in the style of Monet, 8k, a symbol of beauty --ar 1:1"
    assert [(each.text, each.reason) for each in tell_apart(prompt)[1]] == [
        ("photo", "the picture itself"),
        ("in the style of Monet", "a style"),
        ("8k", "a tag"),
        ("beauty", "cannot be seen"),
        ("--ar 1:1", "a parameter"),
    ]


def test_benchmark_prompts():
    for prompts in benchmark_prompts().values():
        for prompt in prompts:
            phrases = re.split(r" and | with ", prompt)
            expected = [(phrase.split()[-1], tuple(phrase.split()[1:-1])) for phrase in phrases]
            assert sets_of(prompt) == expected


@pytest.mark.parametrize("repair", repairs.REPAIRS, ids=lambda repair: repair.name)
def test_every_repair_is_needed_by_its_example(repair, monkeypatch):
    (name,) = {span for span, _ in sets_of(repair.example)} & REPAIRED
    others = tuple(each for each in repairs.REPAIRS if each != repair)
    monkeypatch.setattr(repairs, "REPAIRS", others)
    assert name not in {span for span, _ in sets_of(repair.example)}


@pytest.mark.parametrize("rule", reading.STAND_INS, ids=lambda rule: rule.name)
def test_every_stand_in_is_needed_by_its_example(rule, monkeypatch):
    reading.read.cache_clear()
    read = sets_of(rule.example)
    others = tuple(each for each in reading.STAND_INS if each != rule)
    monkeypatch.setattr(reading, "STAND_INS", others)
    reading.read.cache_clear()
    assert sets_of(rule.example) != read
    reading.read.cache_clear()


def test_every_clause_is_read_and_nothing_is_kept_between_prompts():
    assert sets_of("a dog that is red and a cat that is blue") == [
        ("dog", ("red",)),
        ("cat", ("blue",)),
    ]
    assert sets_of("the apple is red and green") == [("apple", ("red", "green"))]
    assert sets_of("a bird") == [("bird", ())]


def test_spans_are_characters_of_the_prompt():
    (entity,) = analyse("look: a red and white half-eaten cake")
    assert (entity.noun.start, entity.noun.end, entity.span) == (33, 37, (8, 37))
    assert [word.text for word in entity.modifiers] == ["red", "white", "half-eaten"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat and a frog", ("cat", "frog")),
        ("a photo of a cat", ("cat",)),
        ("a photo", ("photo",)),
        ("an orange cat and an orange", ("cat", "orange#2")),
        ("a blue cat and a red cat", ("cat#1", "cat#2")),
        ("an apple to the left of a bowl", ("apple", "bowl")),
    ],
)
def test_subjects(prompt, expected):
    assert nouns(prompt) == expected


def test_no_noun():
    assert analyse("very blue") == ()
    with pytest.raises(
        WordError, match=r"no noun was found in the prompt 'very blue'; name the words yourself"
    ):
        nouns("very blue")


def test_a_changed_pipeline_is_refused(tmp_path):
    (tmp_path / "model").write_bytes(b"other weights")
    with pytest.raises(
        PackageError,
        match=r"not those of version 3.8.0 that was checked \(sha256 [0-9a-f]{64}\)",
    ):
        parser._verify(tmp_path)
