"""Embeddings that are given instead of prompts: words stand where the text encoder read them, in
windows one after another, whatever library weighted them."""

import re

import pytest
import torch
from compel import Compel, CompelForFlux, CompelForSDXL
from diffusers import StableDiffusionPipeline

from attncontrol import edit, record, steer
from attncontrol.edits import Reweight
from attncontrol.errors import WordError
from attncontrol.losses import SynGen
from attncontrol.running.session import attach
from tests.kit import runs
from tests.kit.sd import PROMPT, run
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import flux, sd3, sdxl


@pytest.fixture(scope="module")
def pipe():
    return tiny_sd()


def weighted(pipe, **options):
    return Compel(tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder, **options)


def embeds(own, negative):
    return {"prompt": None, "prompt_embeds": own, "negative_prompt_embeds": negative}


def by_hand(pipe, prompt, *words):
    """Positions of whole words in windows of 32 of the texts between full stops."""
    found = {word: [] for word in words}
    for window, text in enumerate(prompt):
        pieces = ["", *pipe.tokenizer.tokenize(text)]
        for word in words:
            own = pipe.tokenizer.tokenize(word)
            for k in range(len(pieces)):
                if pieces[k : k + len(own)] == own:
                    found[word] += range(32 * window + k, 32 * window + k + len(own))
    return [tuple(found[word]) for word in words]


@pytest.mark.parametrize(
    "prompt", ["a cat and a turtle", "a (cat)1.4 and a turtle", "a cat++ and a (turtle)0.3"]
)
def test_words_of_a_weighted_prompt(pipe, prompt):
    with record(pipe, ["cat", "turtle"], steps=[0]) as maps:
        made = weighted(pipe)
        call = embeds(made(prompt), made("a red car"))
        run(pipe, **call)
    with record(pipe, branches=("cond", "uncond"), steps=[0]) as every:
        made(prompt)  # embeddings from before are known if they are made again
        made("a red car")
        run(pipe, **call)
    assert every.prompts == (PROMPT,)
    assert [span.positions for span in maps.spans[0]] == [(2,), (5, 6)]
    torch.testing.assert_close(maps["turtle"], every.mean()[..., [5, 6]].sum(-1))
    assert every.labels[0][1:7] == ("a", "cat", "and", "a", "tur", "tle")
    assert every.of("uncond").labels[0][1:4] == ("a", "red", "car")


LONG = (
    "a red cat, a dog, a frog, a bird, a bear, a horse, a mouse.",
    "a turtle beside a blue-eyed car, a cat.",
)
"""Two windows of 32, and one of them alone."""


def test_words_of_several_windows(pipe):
    split = weighted(pipe, truncate_long_prompts=False)
    split("a (bird)1.5")  # the library keeps its features of an empty text from now on
    long, words = " ".join(LONG), ("cat", "turtle", "blue-eyed", "horse")
    with record(pipe, words, branches=("cond", "uncond"), steps=[0]) as maps:
        both = split([long.replace("turtle", "(turtle)1.5"), "a (cat)1.2"])
        own, negative = both[:1].repeat(2, 1, 1), both[1:].repeat(2, 1, 1)
        run(pipe, **embeds(own, negative), images=2)
    assert own.shape[1] == 64
    assert maps.prompts == (long,) * 4
    assert [span.positions for span in maps.spans[3]] == by_hand(pipe, LONG, *words)
    assert maps.of("uncond").spans[3][0].positions == (2,)
    assert [t.text for t in maps.tokens[0] if not t.special][-1] == "."


def test_all_verbs_take_words_of_embeddings(pipe):
    texts = ("a red cat and a dog", "a blue turtle and a frog")
    made = weighted(pipe)
    call = embeds(torch.cat([made(text) for text in texts]), made(["a car", "a car"]))
    with steer(pipe, SynGen()) as trace:
        for text in (*texts, "a car"):
            made(text)
        run(pipe, **call)
    with steer(pipe, SynGen()) as other:
        run(pipe, list(texts), negative_prompt=["a car"] * 2)
    assert trace.steps == other.steps
    assert trace.subjects == other.subjects
    with edit(pipe, Reweight({"cat": 3.0}, images=(0,))):
        for text in (*texts, "a car"):
            made(text)
        changed = run(pipe, **call)
    with edit(pipe, Reweight({2: 3.0, 3: 1.0}, images=(0,))):
        assert not torch.equal(changed, run(pipe, **call))
    with edit(pipe, Reweight({3: 3.0}, images=(0,))):
        assert torch.equal(changed, run(pipe, **call))


def test_what_is_not_known_is_refused(pipe):
    made = weighted(pipe)
    before, blend = made("a cat"), '("a cat and a dog", "a turtle on a car").blend(0.5, 0.5)'
    for prompt in (lambda: before, lambda: made(blend)):
        with (
            pytest.raises(WordError, match=r"make its prompt_embeds inside the block \(of one"),
            record(pipe, ["cat"]),
        ):
            run(pipe, **embeds(prompt(), made("")))
    with (
        pytest.raises(WordError, match="'dog' is not in the prompt 'a cat'; its words are: a, cat"),
        record(pipe, ["dog"]),
    ):
        run(pipe, **embeds(made("a (cat)1.5"), made("")))


def test_the_library_for_sdxl():
    pipe = sdxl()
    with record(pipe, ["cat", "turtle"], steps=[0]) as maps:
        made = CompelForSDXL(pipe)(" ".join(LONG).replace("cat,", "(cat)1.3,"), negative_prompt="")
        runs.run(
            "sdxl", pipe, None, prompt_embeds=made.embeds, steps=1,
            pooled_prompt_embeds=made.pooled_embeds, negative_prompt_embeds=made.negative_embeds,
            negative_pooled_prompt_embeds=made.negative_pooled_embeds,
        )  # fmt: skip
    assert [span.positions for span in maps.spans[0]] == by_hand(pipe, LONG, "cat", "turtle")
    with record(pipe, ["cat", "dog"], steps=[0]) as maps:
        made = CompelForSDXL(pipe)("a cat", style_prompt="a cat, red dog", negative_prompt="")
        runs.run(
            "sdxl", pipe, None, prompt_embeds=made.embeds, steps=1,
            pooled_prompt_embeds=made.pooled_embeds, negative_prompt_embeds=made.negative_embeds,
            negative_pooled_prompt_embeds=made.negative_pooled_embeds,
        )  # fmt: skip
    assert [span.positions for span in maps.spans[0]] == [(2,), (5,)]


def test_the_library_for_flux():
    pipe = flux()
    with record(pipe, ["cat", "turtle"], steps=[0]) as maps:
        made = CompelForFlux(pipe)("A (cat)1.3 and a turtle")
        runs.run(
            "flux", pipe, None, prompt_embeds=made.embeds, steps=1,
            pooled_prompt_embeds=made.pooled_embeds,
        )  # fmt: skip
    pieces = [maps.tokens[0][k].text for span in maps.spans[0] for k in span.positions]
    assert pieces == ["cat", "tur", "tle"]


def test_three_encoders():
    pipe = sd3()
    texts = dict.fromkeys(("prompt", "prompt_2", "prompt_3"), "a cat and a turtle")
    with record(pipe, ["turtle"], steps=[0]) as named:
        runs.run("sd3", pipe, texts["prompt"], steps=1)
    with record(pipe, ["turtle"], steps=[0]) as maps, torch.no_grad():
        own, negative, pooled, other = pipe.encode_prompt(**texts, max_sequence_length=16)
        runs.run(
            "sd3", pipe, None, prompt_embeds=own, negative_prompt_embeds=negative, steps=1,
            pooled_prompt_embeds=pooled, negative_pooled_prompt_embeds=other,
        )  # fmt: skip
    assert maps.prompts == named.prompts
    assert maps.spans == named.spans
    assert torch.equal(maps["turtle"], named["turtle"])


class Multiplied(StableDiffusionPipeline):
    """As pipelines that encode weighted prompts by themselves: windows of 30 words, multiplied by
    weights, and all of them scaled together."""

    @torch.no_grad()
    def __call__(self, prompt, negative_prompt="", **call):
        own, other = (self.weighted(text) for text in (prompt, negative_prompt))
        call |= {"prompt_embeds": own, "negative_prompt_embeds": other, "prompt": None}
        return super().__call__(**call)

    def weighted(self, prompt):
        ids, weights = [], []
        for text in re.split(r"(\([^)]*\))", prompt):
            word, _, weight = text.strip("()").partition(":")
            new = self.tokenizer(word).input_ids[1:-1]
            ids, weights = ids + new, weights + [float(weight or 1)] * len(new)
        ids, weights = ids + [self.tokenizer.eos_token_id] * 60, weights + [1.0] * 60
        begin, end = [self.tokenizer.bos_token_id], [self.tokenizer.eos_token_id]
        windows = torch.tensor([begin + ids[k : k + 30] + end for k in (0, 30)])
        states = torch.cat([self.text_encoder(window[None])[0] for window in windows], 1)
        shares = [[1.0, *weights[k : k + 30], 1.0] for k in (0, 30)]
        changed = states * torch.tensor(shares).flatten()[:, None]
        return changed * states.norm() / changed.norm()


def test_a_pipeline_that_weights_its_prompts():
    pipe, long = tiny_sd(cls=Multiplied), "a frog and a red car, " * 5 + "a (turtle:1.3), a cat"
    with record(pipe, ["turtle", "cat", "frog#2"], steps=[0]) as maps:
        run(pipe, long, negative_prompt="a (dog:0.5)")
    clean = long.replace("(", "").replace(":1.3)", "")
    assert maps.prompts == (clean,)
    pieces = pipe.tokenizer.tokenize(clean)
    found = [[k for k, piece in enumerate(pieces) if piece in word] for word in
             (("tur", "tle</w>"), ("cat</w>",), ("frog</w>",))]  # fmt: skip
    placed = [[k + 1 if k < 30 else k + 3 for k in of] for of in (*found[:2], found[2][1:2])]
    assert [list(span.positions) for span in maps.spans[0]] == placed


def test_a_block_around_many_runs_keeps_the_features_of_two(pipe):
    """And all that were made by hand, which any later run may be given."""

    made, given = weighted(pipe), []
    with edit(pipe, Reweight({"cat": 2.0})):
        rows = attach(pipe).contexts.heard.rows
        call = embeds(made("a (cat)1.5"), made("a car"))
        by_hand = len(rows)
        for count in (2, 4, 4, 4):  # a prompt and a negative one in each
            run(pipe, "a cat", callback_on_step_end=lambda *_: given.append(len(rows)) or {})
            assert given[-1] == len(rows) == by_hand + count
        run(pipe, **call)  # whose word is found
    assert not rows


def test_embeddings_that_a_callback_was_handed_are_known_in_the_next_run(pipe):
    found, names = [], ["prompt_embeds"]
    with edit(pipe, Reweight({"turtle": 3.0})):
        edited = run(
            pipe, "a turtle", negative_prompt="a car", callback_on_step_end_tensor_inputs=names,
            callback_on_step_end=lambda *given: found.append(given[-1]["prompt_embeds"]) or {},
        )  # fmt: skip
        own = found[0][1:]
        assert torch.equal(run(pipe, None, negative_prompt="a car", prompt_embeds=own), edited)
