"""In what two prompts differ, and a prompt without one of its things."""

import pytest

from attncontrol.errors import WordError
from attncontrol.prompts.difference import Difference, difference
from attncontrol.prompts.without import without

PAIR = "a red cat and a frog"


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        (PAIR, "a blue cat and a frog", "recolour", "red cat -> blue cat"),
        (PAIR, "a cat and a frog", "recolour", "red cat -> cat"),
        ("a small wooden house", "a small stone house", "recolour",
         "small wooden house -> small stone house"),
        (PAIR, "a red dog and a frog", "swap", "red cat -> red dog"),
        (PAIR, "a red dog and a blue frog", "swap", "red cat -> red dog"),
        ("a cat and a frog", "a dog", "swap", "cat, frog -> dog"),
        ("a red cat", PAIR, "add", "nothing -> frog"),
        (PAIR, "a frog", "remove", "red cat -> nothing"),
        ("a photo of a cat", "a watercolor of a cat", "restyle", "photo -> watercolor"),
        ("a cat", "an oil painting of a cat", "restyle", "nothing -> an oil painting of"),
        ("a cat", "a cat, pixel art", "restyle", "nothing -> pixel art"),
        ("a cat", "a cat in the style of van Gogh", "restyle",
         "nothing -> in the style of van Gogh"),
        ("a cartoon cat", "a watercolor cat", "restyle", "cartoon cat -> watercolor cat"),
        ("a cat sitting", "a cat jumping", "other", "sitting -> jumping"),
        ("a cat on a mat", "a cat under a mat", "other", "on -> under"),
        ("a cat", "the cat", "other", "a -> the"),
        ("a cat", "A  cat", "none", ""),
    ],
)  # fmt: skip
def test_kinds_of_change(before, after, kind, words):
    assert difference(before, after) == Difference(kind, words)


@pytest.mark.parametrize(
    ("prompt", "word", "rest"),
    [
        (PAIR, "frog", "a red cat"),
        (PAIR, "cat", "a frog"),
        (PAIR, "red cat", "a frog"),
        ("a cat, a dog and a frog", "cat", "a dog and a frog"),
        ("a cat, a dog and a frog", "frog", "a cat and a dog"),
        ("a cat, a dog, and a frog", "dog", "a cat and a frog"),
        ("a cat, a dog, a car and a frog", "car", "a cat, a dog and a frog"),
        ("a cat, a frog, a car", "car", "a cat, a frog"),
        ("a lion with a crown", "crown", "a lion"),
        ("a lion with a crown, a cat and a frog", "cat", "a lion with a crown and a frog"),
        ("a cat and a frog in a garden", "cat", "a frog in a garden"),
        ("a cat and a frog in a garden", "garden", "a cat and a frog"),
        ("a dog that is red and two very small cats", "dog", "two very small cats"),
        ("a cat and a cat", "cat#2", "a cat"),
        ("A cat and a frog, watercolor", "cat", "A frog, watercolor"),
        ("a photo of a cat and a frog", "frog", "a photo of a cat"),
    ],
)
def test_a_prompt_without_a_thing(prompt, word, rest):
    assert without(prompt, word) == rest


@pytest.mark.parametrize(
    ("prompt", "word", "why"),
    [
        ("a photo of a cat", "cat", "nothing would be left that stands by itself"),
        ("a lion with a crown", "lion", "'with a crown' may be said of it"),
        ("a cat and a frog in a garden", "frog", "'in a garden' may be said of it"),
        ("a cat chases a frog", "frog", "it stands in a sentence"),
        ("a cat and a frog are green", "cat", "it stands in a sentence"),
        ("a cat and its hat", "cat", "others may be its own"),
        ("a table of wood and a cat", "wood", "nothing would be left"),
        ("a cat and a cat", "cat", "is 2 times in .*: say which, cat#1"),
        (PAIR, "red", "'red' is no thing of .*; its things are: cat, frog"),
        (PAIR, "mouse", "'mouse' is not in the prompt"),
        (PAIR, "frog#2", "'frog#2' is not in the prompt"),
        (PAIR, "frog#x", "'frog#x' is not in the prompt"),
    ],
)
def test_what_would_leave_no_prompt_is_refused(prompt, word, why):
    with pytest.raises(WordError, match=why):
        without(prompt, word)
