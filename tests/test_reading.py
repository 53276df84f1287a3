"""Tokens are what the text encoders were given: followed where the pipeline changes the prompt,
refused where that is not known; each branch has its own text; words by position need none."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from attncontrol import Where, edit, load, locate, record, save, steer
from attncontrol.edits import Reweight
from attncontrol.errors import CallError, SettingError, WordError
from attncontrol.losses import AttendAndExcite
from attncontrol.prompts.tokens import Span
from attncontrol.prompts.words import listed, require_word
from tests.kit import runs
from tests.kit.sd import PROMPT, run
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import flux, pixart, sana, sd3, sdxl
from tests.kit.zoo_chat import lumina2, wan


class Received:
    """Ids that reach a text encoder."""

    def __init__(self, encoder):
        self.rows = []
        self.hook = encoder.register_forward_pre_hook(self.keep, with_kwargs=True)

    def keep(self, _, args, kwargs):
        self.rows += (args[0] if args else kwargs["input_ids"]).tolist()


def positions(tokenizer, row, *pieces):
    """Where the pieces stand in a row of ids."""
    return [k for k, piece in enumerate(tokenizer.convert_ids_to_tokens(row)) if piece in pieces]


@torch.no_grad()
def embedded(pipe, prompt=PROMPT):
    own, negative = pipe.encode_prompt(prompt, "cpu", 1, True)
    return {"prompt": None, "prompt_embeds": own, "negative_prompt_embeds": negative}


def test_a_textual_inversion_of_several_vectors_is_one_word(pipe):
    pipe.load_textual_inversion(
        torch.randn(3, 32, generator=torch.Generator().manual_seed(1)), token="<toy>"
    )
    received = Received(pipe.text_encoder)
    with record(pipe, ["<toy>", "frog"]) as maps:
        run(pipe, "a <toy>, and a frog", guidance_scale=1.0)
    (row,) = received.rows
    with record(pipe) as every:
        run(pipe, "a <toy>, and a frog", guidance_scale=1.0)
    toy = positions(pipe.tokenizer, row, "<toy>", "<toy>_1", "<toy>_2")
    assert toy == [2, 3, 4]
    assert [list(span.positions) for span in maps.spans[0]] == [toy, [8]]
    assert positions(pipe.tokenizer, row, "frog</w>") == [8]
    torch.testing.assert_close(maps["<toy>"], every.mean()[..., toy].sum(-1))
    assert [token.id for token in every.tokens[0]] == row


@pytest.mark.parametrize(("make", "name"), [(pixart, "pixart"), (sana, "sana"), (wan, "wan")])
def test_a_prompt_that_the_pipeline_cleans_is_followed(make, name):
    pipe, prompt = make(), "  A CAT   and a Turtle "
    received = Received(pipe.text_encoder)
    with record(pipe, ["cat", "a Turtle"], steps=[0]) as maps:
        runs.run(name, pipe, prompt, steps=2)
    row = next(row for row in received.rows if maps.tokens[0][3].id == row[3])
    assert [token.id for token in maps.tokens[0]] == row[: len(maps.tokens[0])]
    cat, turtle = ([maps.tokens[0][k].text for k in span.positions] for span in maps.spans[0])
    assert "".join(cat).lower() == "cat"
    assert "".join(turtle).lower() == "aturtle"


class Weighted(StableDiffusionPipeline):
    """As pipelines that read weights out of the prompt."""

    def encode_prompt(self, prompt, *args, **kwargs):
        return super().encode_prompt(prompt.replace("(", "").replace(":1.3)", ""), *args, **kwargs)


def test_other_ids_than_those_of_the_prompt_are_refused_by_name():
    pipe = tiny_sd(cls=Weighted)
    prompt = "a (cat:1.3) and a turtle"
    with (
        pytest.raises(
            CallError, match=r"text_encoder of Weighted did not read 'a .cat:1.3. and"
        ) as e,
        record(pipe, ["turtle"]),
    ):
        run(pipe, prompt)
    assert "at position 2 it got 'cat</w> and</w>" in str(e.value)
    with record(pipe, [Span("turtle", (5, 6))]) as maps:
        run(pipe, prompt)
    with record(pipe, ["turtle"]) as plain:
        run(pipe)
    assert torch.equal(maps["turtle"], plain["turtle"])
    with steer(pipe, AttendAndExcite([2, 5])) as trace:
        run(pipe, prompt)
    with steer(pipe, AttendAndExcite([2, 5])) as other:
        run(pipe)
    assert trace.steps == other.steps


def test_an_encoder_that_does_not_run_is_refused(pipe):
    kept = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    pipe.encode_prompt = lambda *_, **__: kept
    with (
        pytest.raises(CallError, match=r"text_encoder .* did not run in this call"),
        record(pipe, ["cat"]),
    ):
        run(pipe)


def test_each_branch_has_its_own_text(pipe, tmp_path):
    negative = "a turtle and a red car"
    call = {"negative_prompt": negative}
    with record(pipe, branches=("cond", "uncond")) as every:
        run(pipe, **call)
    assert every.labels[0][1:7] == ("a", "cat", "and", "a", "tur", "tle")
    assert every.of("uncond").labels[0][1:8] == ("a", "tur", "tle", "and", "a", "red", "car")
    with record(pipe, ["turtle", "car"], branches=("uncond",)) as maps:
        run(pipe, **call)
    assert maps.prompts == (negative,)
    expected = every.mean("uncond")
    torch.testing.assert_close(maps["turtle"], expected[..., [2, 3]].sum(-1))
    torch.testing.assert_close(maps["car"], expected[..., 7])
    with record(pipe, ["cat", "turtle", "car"], branches=("cond", "uncond")) as both:
        run(pipe, **call)
    both = load(save(both, tmp_path / "both.safetensors"))
    assert both["car"].isnan().all()
    assert both.of("uncond")["cat"].isnan().all()
    torch.testing.assert_close(both.of("uncond")["car"], maps["car"])
    assert both.of("uncond").spans == (
        (Span("cat", ()), Span("turtle", (2, 3)), Span("car", (7,))),
    )
    with (
        pytest.raises(WordError, match="'cat' is not in the prompt 'a turtle and a red car'"),
        record(pipe, ["cat"], branches=("uncond",)),
    ):
        run(pipe, **call)
    with pytest.raises(SettingError, match="branch 'skip' was not recorded"):
        both.of("skip")


def test_a_negative_prompt_that_is_read_by_itself():
    pipe = lumina2()
    with record(pipe, ["turtle"], branches=("cond", "uncond"), steps=[0]) as maps:
        runs.run("lumina2", pipe, PROMPT, guidance_scale=4.0, negative_prompt="a turtle", steps=1)
    with record(pipe, ["turtle"], steps=[0]) as own:
        runs.run("lumina2", pipe, PROMPT, guidance_scale=4.0, negative_prompt="a turtle", steps=1)
    assert torch.equal(maps["turtle"], own["turtle"])
    assert maps.of("uncond").spans[0][0].positions < own.spans[0][0].positions  # no system prompt
    with record(pipe, branches=("cond", "uncond"), steps=[0]) as every:
        runs.run("lumina2", pipe, PROMPT, guidance_scale=4.0, negative_prompt="a turtle", steps=1)
    found = every.of("uncond")
    torch.testing.assert_close(
        maps.of("uncond")["turtle"],
        found.mean()[..., list(maps.of("uncond").spans[0][0].positions)].sum(-1),
    )


def test_positions_do_without_the_prompt(pipe):
    known = embedded(pipe)  # of before, which nobody heard
    with record(pipe, ["cat", "turtle"]) as named:
        run(pipe)
    with record(pipe, [2, Span("turtle", (5, 6))]) as maps:
        run(pipe, **known)
    assert maps.labels == (("2", "turtle"),)
    assert maps.prompts == ("",)
    assert torch.equal(maps[2], named["cat"])
    assert torch.equal(maps["turtle"], named["turtle"])
    where = Where(kind="self", stride=4)
    with record(pipe, direction="image->image", where=where) as among:
        run(pipe)
    with record(pipe, direction="image->image", where=where) as without:
        run(pipe, **known)
    assert torch.equal(among.mean(), without.mean())
    with steer(pipe, AttendAndExcite([2, Span("turtle", (5, 6))])) as trace:
        run(pipe, **known)
    with steer(pipe, AttendAndExcite(["cat", "turtle"])) as other:
        run(pipe)
    assert trace.steps == other.steps
    with edit(pipe, Reweight({2: 3.0})):
        changed = run(pipe, **known)
    with edit(pipe, Reweight({"cat": 3.0})):
        assert torch.equal(changed, run(pipe))
    for words in (["cat"], None):
        with (
            pytest.raises(WordError, match=r"without the prompt: .* words=\[2, 5\]"),
            record(pipe, words),
        ):
            run(pipe, **known)
    for act in (
        record(pipe, [32]),
        steer(pipe, AttendAndExcite([2, 32])),
        edit(pipe, Reweight({32: 2.0})),
    ):
        with (
            pytest.raises(WordError, match="position 32 does not exist: the text has 32, 0 to 31"),
            act,
        ):
            run(pipe, **known)


def test_positions_in_joint_attention():
    pipe = sd3()
    with steer(pipe, AttendAndExcite(["cat", "dog"])) as named:
        runs.run("sd3", pipe, "cat dog")
    spans = named.subjects[0]
    given = [Span("x", subject.noun.positions) for subject in spans]
    with steer(pipe, AttendAndExcite(given)) as trace:
        runs.run("sd3", pipe, "cat dog")
    assert trace.steps == named.steps
    with torch.no_grad():
        texts = dict.fromkeys(("prompt", "prompt_2", "prompt_3"), "cat dog")
        own, negative, pooled, other = pipe.encode_prompt(**texts, max_sequence_length=16)
    call = {"prompt_embeds": own, "negative_prompt_embeds": negative}
    call |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": other}
    with steer(pipe, AttendAndExcite(given)) as without:
        runs.run("sd3", pipe, None, **call)
    assert len(without.steps) == len(trace.steps)


def test_words_of_the_prompt_that_an_encoder_reads():
    pipe = flux()  # T5 reads prompt_2 alone
    with record(pipe, ["dog"], steps=[0]) as maps:
        runs.run("flux", pipe, "a cat", prompt_2="a red dog", steps=1)
    assert maps.prompts == ("a red dog",)
    assert maps.spans[0][0] == locate(pipe, "a red dog", "dog", max_sequence_length=16)
    with (
        pytest.raises(WordError, match="'cat' is not in the prompt 'a red dog'"),
        record(pipe, ["cat"]),
    ):
        runs.run("flux", pipe, "a cat", prompt_2="a red dog", steps=1)
    pipe = sd3()
    with record(pipe, ["dog", "cat"], steps=[0]) as maps:
        runs.run("sd3", pipe, "a cat", prompt_3="a dog", steps=1)
    assert maps.prompts == ("a cat | a dog",)
    dog, cat = (span.positions for span in maps.spans[0])
    assert cat == (2,)
    assert [maps.tokens[0][k].encoder for k in dog] == ["t5"]


def test_two_words_at_one_position_are_told_apart_or_refused():
    pipe = sdxl()  # the features of its encoders lie side by side
    call = {"prompt_2": "a cat, red dog", "steps": 1}
    with record(pipe, ["cat", "dog"], steps=[0]) as maps:
        runs.run("sdxl", pipe, "a cat", **call)
    assert [span.positions for span in maps.spans[0]] == [(2,), (5,)]
    with pytest.raises(WordError, match="'car' cannot be told from 'dog'"), record(pipe, ["car"]):
        runs.run("sdxl", pipe, "a car", prompt_2="a dog", steps=1)
    with record(pipe, steps=[0]) as every:
        runs.run("sdxl", pipe, "a car", prompt_2="a dog", steps=1)
    assert every.labels[0][1:3] == ("a", "car|dog")


def test_words_that_some_prompts_lack_are_nan(pipe):
    with record(pipe, ["cat", "dog"]) as maps:
        run(pipe, ["a cat", "a dog"])
    with record(pipe, {"a cat": ["cat"], "a dog": ["dog"]}) as each:
        run(pipe, ["a cat", "a dog"])
    assert maps["cat"][1].isnan().all()
    assert torch.equal(maps["cat"][0], each["cat"][0])
    assert each["dog"][0].isnan().all()
    assert torch.equal(each["dog"][1], maps["dog"][1])
    with pytest.raises(WordError, match="'frog' was not recorded; recorded are: cat, dog"):
        each["frog"]
    with (
        pytest.raises(WordError, match="'frog' is not in the prompt 'a cat'"),
        record(pipe, ["cat", "frog"]),
    ):
        run(pipe, ["a cat", "a dog"])


@pytest.mark.parametrize("word", [["a", "cat"], 2.5, True, None, b"cat"])
def test_what_is_no_word_is_refused(word):
    with pytest.raises(WordError, match="is not a word; write 'cat' or 'red car', a position"):
        require_word(word)


@pytest.mark.parametrize("words", ["cat", 5, [], None, b"cat", Span("cat", (2,))])
def test_what_is_no_list_of_words_is_refused(words):
    with pytest.raises(WordError, match="must be a non-empty list such as"):
        listed(words)


def test_numbers_of_numpy_are_positions():
    assert [require_word(word) for word in listed(np.array([2, 5]))] == [2, 5]
    assert listed(np.array(["cat", "frog"])) == ["cat", "frog"]


@pytest.mark.parametrize("direction", ["image->text", "text->image", "text->text"])
def test_all_positions_of_text_without_padding(direction):
    pipe = lumina2()
    with record(pipe, direction=direction, steps=[0]) as maps:
        runs.run("lumina2", pipe, "a cat", steps=1)
    assert maps.labels[0][-2:] == tuple(token.text for token in maps.tokens[0][-2:])
    assert maps.mean().shape[-1] == len(maps.tokens[0])
    assert maps.mean().isfinite().all()
