import pytest

from attncontrol import locate
from attncontrol.errors import WordError
from attncontrol.prompts.origin import aligned, source, spelled_out
from attncontrol.prompts.spelling import places
from attncontrol.prompts.syntax import nouns
from attncontrol.prompts.tokens import Span, Token, tokenize
from attncontrol.prompts.words import find, resolve, subjects
from attncontrol.sprites.training.text import make_tokenizer

TOKENIZER = make_tokenizer()


def positions(prompt, phrase):
    return find(tokenize(TOKENIZER, prompt), prompt, phrase).positions


def test_words_of_one_and_of_several_tokens():
    prompt = "a elephant and a purple car"
    assert TOKENIZER.tokenize(prompt) == [
        "a</w>",
        "ele",
        "ph",
        "ant</w>",
        "and</w>",
        "a</w>",
        "pur",
        "ple</w>",
        "car</w>",
    ]
    assert positions(prompt, "elephant") == (2, 3, 4)
    assert positions(prompt, "car") == (9,)
    assert positions(prompt, "purple car") == (7, 8, 9)


def test_case_punctuation_and_spaces():
    assert positions("A  Cat, (a FROG)!", "cat") == (2,)
    assert positions("A  Cat, (a FROG)!", "Frog") == (6,)
    assert positions("a red\tcar", "red car") == (2, 3)


def test_repeated_words_count_together_unless_numbered():
    prompt = "a cat and a cat"
    assert positions(prompt, "cat") == (2, 5)
    assert positions(prompt, "cat#1") == (2,)
    assert positions(prompt, "cat#2") == (5,)
    with pytest.raises(WordError, match=r"'cat#3'.* has 2 occurrence\(s\) of 'cat'"):
        positions(prompt, "cat#3")


def test_only_whole_words_match():
    with pytest.raises(
        WordError, match=r"'car' is not in the prompt 'a carpet'; its words are: a, carpet"
    ):
        positions("a carpet", "car")


@pytest.mark.parametrize("phrase", ["", " ", "cat#0", "cat#x"])
def test_malformed_phrases(phrase):
    with pytest.raises(WordError, match="is not a word; write"):
        positions("a cat", phrase)


def test_word_beyond_the_text_limit():
    prompt = "a " * 40 + "frog"
    with pytest.raises(
        WordError, match=r"'frog' \(characters 80-84\) lies beyond the text limit of 32 tokens"
    ):
        positions(prompt, "frog")


def test_partly_truncated_word_is_refused():
    prompt = "a " * 29 + "elephant"  # 29 words and one of three pieces fill the 30 places
    with pytest.raises(WordError, match="beyond the text limit"):
        positions(prompt, "elephant")


def test_token_table_has_specials_padding_and_offsets():
    table = tokenize(TOKENIZER, "a frog")
    assert len(table) == 32
    assert [t.special for t in table[:5]] == [True, False, False, True, True]
    assert (table[2].text, table[2].start, table[2].end) == ("frog", 2, 6)


@pytest.mark.parametrize(
    ("prompt", "phrase", "found"),
    [
        ("a cafe\u0301 and", "caf\u00e9", ["cafe\u0301"]),
        ("a caf\u00e9 and", "cafe\u0301", ["caf\u00e9"]),
        ("\u4e00\u53ea\u732b\u548c\u4e00\u53ea\u9752\u86d9", "\u732b", ["\u732b"]),
        ("\u4e00\u53ea\u732b\u548c\u4e00\u53ea\u9752\u86d9", "\u4e00\u53ea", ["\u4e00\u53ea"] * 2),
        ("\u30ab\u30a8\u30eb\u3068\u732b", "\u30ab\u30a8\u30eb", ["\u30ab\u30a8\u30eb"]),
        ("\u0e41\u0e21\u0e27\u0e41\u0e25\u0e30", "\u0e41\u0e21\u0e27", ["\u0e41\u0e21\u0e27"]),
        ("\u0915\u093f", "\u0915", []),  # a letter without the vowel that is written on it
        ("\uff23\uff21\uff34 and dog", "cat", ["\uff23\uff21\uff34"]),
        ("die STRASSE", "stra\u00dfe", ["STRASSE"]),
        ("\u0130stanbul", "istanbul", ["\u0130stanbul"]),
        ("I\u015eIK", "\u0131\u015f\u0131k", ["I\u015eIK"]),
        ("k\u0131r kir", "k\u0131r", ["k\u0131r"]),
        ("a dog\u2019s bone", "dog's", ["dog\u2019s"]),
        ("a \U0001f469\u200d\U0001f680 and \U0001f469", "\U0001f469", ["\U0001f469"]),
        ("\ufb01ne", "f", []),
        ("\ufb01ne", "fine", ["\ufb01ne"]),
    ],
)
def test_words_of_any_script_and_normal_form(prompt, phrase, found):
    at = places(prompt, phrase)
    assert [prompt[start:end] for start, end in at] == found
    if phrase == "\U0001f469":
        assert at == [(10, 11)]


def test_a_token_that_holds_another_word_too_is_refused():
    panda = [Token(1, 5, "\u718a\u732b", 0, 2, special=False)]
    with pytest.raises(WordError, match=r"cannot be told from .* position 1; name the whole"):
        find(panda, "\u718a\u732b", "\u732b")
    assert find(panda, "\u718a\u732b", "\u718a\u732b").positions == (1,)
    assert find(panda, "\u718a\u732b", Span("panda", (1,))) == Span("panda", (1,))


def test_a_text_is_followed_to_the_prompt_it_was_made_from():
    text, origin = spelled_out("a <x>, b", {"<x>", "<x>_1", "<x>_2"})
    assert text == "a <x> <x>_1 <x>_2, b"
    assert source(origin, 6, 11) == (2, 5)
    assert source(origin, 17, 18) == (5, 6)
    assert source(origin, 19, 20) == (7, 8)
    changed = aligned("A  Cat\u2019s http://x.y frog", "a cat's frog")
    assert source(changed, 2, 5) == (3, 6)
    assert source(changed, 8, 12) == (20, 24)
    assert source(aligned("red cat", "crimson cat"), 8, 11) == (4, 7)
    assert source(aligned("red cat", "crimson cat"), 0, 7) == (0, 0)


def read(*prompts):
    return [tokenize(TOKENIZER, prompt) for prompt in prompts].__getitem__


def test_words_per_prompt():
    prompts = ["a cat", "a frog", "a cat"]
    spans = resolve(read(*prompts), prompts, {"a cat": ["cat"], "a frog": ["frog"]})
    assert [[s.text for s in of] for of in spans] == [["cat"], ["frog"], ["cat"]]
    with pytest.raises(
        WordError, match="no words are given for the prompt 'a dog'; words are given for: 'a cat'"
    ):
        resolve(read("a dog"), ["a dog"], {"a cat": ["cat"]})
    with pytest.raises(WordError, match="a subject is a noun, or modifiers and last their noun"):
        subjects(read("a cat"), ["a cat"], ["cat", []])


def test_locate_uses_the_pipelines_tokenizer(pipe):
    assert locate(pipe, "a cat and a turtle", "turtle").positions == (5, 6)


def test_nouns():
    assert nouns("a blue clock and a orange apple") == ("clock", "apple")
    assert nouns("a cat, a dog and a red car") == ("cat", "dog", "car")
    assert nouns("a red car and a blue car") == ("car#1", "car#2")
    with pytest.raises(WordError, match="no noun was found in the prompt 'very quickly'"):
        nouns("very quickly")
