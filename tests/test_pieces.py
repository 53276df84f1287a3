"""Where tokens come from of a tokenizer that reports no offsets but keeps all characters."""

from types import SimpleNamespace

import pytest

from attncontrol.errors import ModelError
from attncontrol.prompts.tokens import tokenize
from tests.kit.zoo_newer import glm_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return glm_tokenizer()


def said(prompt, tokens):
    return [prompt[t.start : t.end] for t in tokens if not t.special]


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a red cat and a turtle", ["a", " red", " cat", " and", " a", " ", "tur", "tle"]),
        ("a  red\tcat", ["a", " red", " cat"]),  # more than one space is read as one
        ("a cat\u00e9 dog", ["a", " cat", "\u00e9", "\u00e9", " dog"]),  # two bytes
        ("\u732b a dog", ["\u732b", "\u732b", "\u732b", " a", " dog"]),
    ],
)
def test_tokens_come_from_their_characters(tokenizer, prompt, pieces):
    tokens = tokenize(tokenizer, prompt, length=24)
    assert len(tokens) == 24
    assert [t.index for t in tokens] == list(range(24))
    assert [piece.strip() for piece in said(prompt, tokens)] == [piece.strip() for piece in pieces]
    shown = [t for t in tokens if t.text]
    assert [t.text for t in shown[:2]] == ["[gMASK]", "sop"]


def test_what_is_cut_off_is_no_token(tokenizer):
    tokens = tokenize(tokenizer, "a red cat and a turtle", length=5)
    assert [t.text for t in tokens] == ["[gMASK]", "sop", "a", "red", "cat"]
    assert said("a red cat and a turtle", tokens[2:]) == ["a", " red", " cat"]


def test_what_is_written_around_a_prompt_is_special(tokenizer):
    tokens = tokenize(tokenizer, "a dog", padding=False, around=("a red ", " and a cat"))
    assert said("a dog", tokens) == ["a", " dog"]


def test_tokens_that_are_not_those_of_the_text_are_refused(tokenizer):
    class Changed(SimpleNamespace):
        def __call__(self, text, **options):
            return tokenizer(text if "padding" in options else text.upper(), **options)

    changed = Changed(
        sp_model=1, is_fast=False, model_max_length=24,
        convert_ids_to_tokens=tokenizer.convert_ids_to_tokens,
    )  # fmt: skip
    with pytest.raises(ModelError, match="where its tokens come from in the prompt is not certain"):
        tokenize(changed, "a dog")
