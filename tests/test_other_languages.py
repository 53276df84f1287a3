"""Prompts in other languages: nouns and modifiers by an installed spaCy pipeline of the language; a
clear refusal without one, before anything runs."""

import sys

import pytest

from attncontrol import steer
from attncontrol.errors import WordError
from attncontrol.losses import SynGen
from attncontrol.prompts import parser
from attncontrol.prompts.difference import difference
from attncontrol.prompts.syntax import analyse, subjects_of
from attncontrol.prompts.without import without
from tests.kit.sd import run
from tests.kit.tiny import tiny_sd

PACKAGE = '''
import spacy
from spacy.language import Language

KINDS = {
    "rote": "ADJ", "blauer": "ADJ", "kleiner": "ADJ", "blau": "ADJ", "schlafender": "ADJ",
    "katze": "NOUN", "hund": "NOUN", "hut": "NOUN", "kind": "NOUN", "ist": "AUX", "und": "CCONJ",
    "eine": "DET", "ein": "DET", "der": "DET", "mit": "ADP", ",": "PUNCT",
}

@Language.component("german_by_rule")
def german(doc):
    """Adjectives hang on the next noun, those before "und" on each other; "X ist A": pd and sb."""
    for token in doc:
        token.pos_ = KINDS.get(token.lower_, "X")
    for token in doc:
        later = [t for t in doc[token.i + 1:] if t.pos_ == "NOUN"]
        if token.lower_ == "blau":
            verb = next(t for t in doc if t.lower_ == "ist")
            token.head, token.dep_ = verb, "pd"
            subject = [t for t in doc[: verb.i] if t.pos_ == "NOUN"][-1]
            subject.head, subject.dep_ = verb, "sb"
        elif token.pos_ == "ADJ" and later:
            token.head, token.dep_ = later[0], "nk"
        if token.pos_ == "CCONJ" and doc[token.i - 1].pos_ == doc[token.i + 1].pos_ == "ADJ":
            token.head, token.dep_ = doc[token.i - 1], "cd"
    for token in doc:
        if token.pos_ == "ADJ" and token.i and doc[token.i - 1].dep_ == "cd":
            token.head, token.dep_ = doc[token.i - 1], "cj"
    return doc

def load(**_):
    nlp = spacy.blank("de")
    nlp.add_pipe("german_by_rule")
    return nlp
'''
NAME = "de_core_news_sm"


@pytest.fixture
def german(tmp_path, monkeypatch):
    """A small German pipeline, installed as those of spaCy are."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").write_text(PACKAGE, "utf-8")
    about = tmp_path / f"{NAME}-3.8.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 3.8.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    parser._loaded.cache_clear()
    sys.modules.pop(NAME, None)


@pytest.mark.usefixtures("german")
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "eine rote Katze und ein kleiner und blauer Hund mit Hut, 8k",
            {"Katze": ["rote"], "Hund": ["kleiner", "blauer"], "Hut": []},
        ),
        ("der Hund ist blau und ein schlafender Kind", {"Hund": ["blau"], "Kind": ["schlafender"]}),
    ],
)
def test_nouns_of_another_language(prompt, expected):
    found = {e.noun.text: [word.text for word in e.modifiers] for e in subjects_of(prompt)}
    assert found == expected
    for each in analyse(prompt):
        assert prompt[each.noun.start : each.noun.end] == each.noun.text


@pytest.mark.usefixtures("german")
def test_a_loss_that_parses_takes_it():
    pipe, prompt = tiny_sd(), "eine rote Katze und ein Hund"
    with steer(pipe, SynGen()) as trace:
        run(pipe, prompt, height=32, width=48, steps=1)
    with steer(pipe, SynGen([["rote", "Katze"], "Hund"])) as named:
        run(pipe, prompt, height=32, width=48, steps=1)
    assert trace.subjects == named.subjects
    assert trace.steps == named.steps
    assert difference(prompt, "eine rote Katze und ein Hut").words == "Hund -> Hut"
    with pytest.raises(WordError, match=r"for English prompts only, and .* seems to be German"):
        without(prompt, "Hund")


@pytest.mark.parametrize(
    ("prompt", "remedy"),
    [
        ("eine rote Katze und ein Hund", "of it, such as de_core_news_sm$"),
        ("un chat rouge et un chien", "of it, such as fr_core_news_sm$"),
        ("一只猫和一只青蛙", "of it, such as zh_core_web_sm$"),
        ("bir kedi ve köpek", r"or --words \.\.\.$"),
    ],
)
def test_without_a_pipeline_nothing_runs(prompt, remedy):
    pipe, seen = tiny_sd(), []
    handle = pipe.unet.conv_in.register_forward_hook(lambda *_: seen.append(1))
    with (
        pytest.raises(WordError, match=f"English prompts only.* name the words yourself.*{remedy}"),
        steer(pipe, SynGen()),
    ):
        run(pipe, prompt)
    handle.remove()
    assert not seen
