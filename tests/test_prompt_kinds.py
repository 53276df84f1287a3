"""Prompts as users have them: other ones for each encoder, textual inversions of several vectors,
clip_skip."""

import pytest
import torch
from compel import Compel, DiffusersTextualInversionManager
from safetensors.torch import save_file

from attncontrol import record, steer
from attncontrol.losses import AttendAndExcite
from tests.kit import runs
from tests.kit.sd import run
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import flux, sd3, sdxl

TOY = ("<cat-toy>", "<cat-toy>_1", "<cat-toy>_2")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The file of an embedding of three vectors."""
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    save_file({"emb_params": torch.randn(3, 32, generator=torch.Generator().manual_seed(1))}, path)
    return str(path)


@pytest.fixture(scope="module")
def with_toy(toy):
    pipe = tiny_sd()
    pipe.load_textual_inversion(toy, token=TOY[0])
    return pipe


def places(tokenizer, ids, *pieces):
    return [k for k, piece in enumerate(tokenizer.convert_ids_to_tokens(ids)) if piece in pieces]


def test_all_vectors_of_a_textual_inversion(with_toy):
    prompt = "a <cat-toy>, a frog, <cat-toy>"
    pipe, written = with_toy, with_toy.maybe_convert_prompt(prompt, with_toy.tokenizer)
    ids = pipe.tokenizer(written).input_ids
    expected = [places(pipe.tokenizer, ids, *TOY), places(pipe.tokenizer, ids, "frog</w>")]
    with record(pipe, ["<cat-toy>", "frog"], steps=[0]) as maps:
        run(pipe, prompt)
    assert [list(span.positions) for span in maps.spans[0]] == expected
    assert len(expected[0]) == 3 * prompt.count("<")
    with record(pipe, ["<cat-toy>", "frog"], steps=[0]) as weighted:
        inversions = DiffusersTextualInversionManager(pipe)
        compel = Compel(pipe.tokenizer, pipe.text_encoder, textual_inversion_manager=inversions)
        own, other = compel(prompt.replace("frog", "(frog)1.3")), compel("")
        run(pipe, None, prompt_embeds=own, negative_prompt_embeds=other)
    assert weighted.prompts == (prompt,)
    assert weighted.spans == maps.spans
    with steer(pipe, AttendAndExcite(["<cat-toy>", "frog"])) as trace:
        run(pipe, prompt, steps=1)
    assert [list(each.noun.positions) for each in trace.subjects[0]] == expected


def test_a_textual_inversion_of_both_encoders(toy):
    pipe = sdxl()
    pipe.load_textual_inversion(
        toy, token=TOY[0], text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer
    )
    with torch.no_grad():  # the tokenizer is one object, which knows the token now
        pipe.text_encoder_2.resize_token_embeddings(len(pipe.tokenizer_2))
    with record(pipe, ["<cat-toy>", "frog"], steps=[0]) as maps:
        runs.run("sdxl", pipe, "a <cat-toy> and a frog", steps=1)
    assert [span.positions for span in maps.spans[0]] == [(2, 3, 4), (7,)]
    assert [token.text for token in maps.tokens[0][2:5]] == list(TOY)


def test_clip_skip_moves_nothing():
    pipe, prompt = tiny_sd(), "a red cat and a turtle"
    vars(pipe.text_encoder)["text_model"] = pipe.text_encoder  # where diffusers looks for its norm
    hidden = {}

    def keep(_, args, output):
        hidden["states"], hidden["ids"] = output.hidden_states[-2], args[0]

    handle = pipe.text_encoder.register_forward_hook(keep)
    with record(pipe, ["cat", "turtle"], steps=[0]) as skipped, torch.no_grad():
        run(pipe, prompt, clip_skip=1, guidance_scale=1.0)
    handle.remove()
    found = [places(pipe.tokenizer, hidden["ids"][0].tolist(), *p) for p in
             (("cat</w>",), ("tur", "tle</w>"))]  # fmt: skip
    assert [list(span.positions) for span in skipped.spans[0]] == found == [[3], [6, 7]]
    with torch.no_grad():
        states = pipe.text_encoder.final_layer_norm(hidden["states"])
    with record(pipe, [3, 6, 7], steps=[0]) as by_hand:
        run(pipe, None, prompt_embeds=states, guidance_scale=1.0)
    assert torch.equal(skipped["cat"], by_hand[3])
    torch.testing.assert_close(skipped["turtle"], by_hand[6] + by_hand[7])
    with record(pipe, ["cat", "turtle"], steps=[0]) as made:
        own, _ = pipe.encode_prompt(prompt, "cpu", 1, False, clip_skip=1)
        run(pipe, None, prompt_embeds=own, guidance_scale=1.0)
    assert made.spans == skipped.spans
    assert torch.equal(made["cat"], skipped["cat"])


def test_each_encoder_of_sdxl_has_its_own_prompts():
    pipe, prompts = sdxl(), ["a cat", "a red frog"]
    call = {"prompt_2": ["a cat, dog", "a red, turtle"], "steps": 1}
    negatives = {"negative_prompt_2": ["a car, bird", "car, a bear"]}
    call |= {"negative_prompt": ["a car", "car"]} | negatives
    words = {"a cat | a cat, dog": ["dog", "cat"], "a red frog | a red, turtle": ["red", "turtle"]}
    with record(pipe, words, steps=[0]) as maps:
        runs.run("sdxl", pipe, prompts, **call)
    assert [[s.positions for s in of] for of in maps.spans] == [[(4,), (2,)], [(2,), (4, 5)]]
    with record(pipe, branches=("uncond",), steps=[0]) as maps:
        runs.run("sdxl", pipe, prompts, **call)
    assert maps.prompts == ("a car | a car, bird", "car | car, a bear")
    assert [maps.labels[0][4], maps.labels[1][4]] == ["bird", "bear"]


@pytest.mark.parametrize(
    ("given", "spans"),
    [
        ({"prompt_2": "a cat, dog"}, [(2, 33), (4,)]),  # T5 reads "a cat" from position 32 on
        ({"prompt_3": "a red dog"}, [(2,), (34,)]),
        ({"prompt_2": "a cat, dog", "prompt_3": "dog"}, [(2,), (4, 32)]),
    ],
)
def test_each_encoder_of_sd3_has_its_own_prompt(given, spans):
    pipe = sd3()
    with record(pipe, ["cat", "dog"], steps=[0]) as maps:
        runs.run("sd3", pipe, "a cat", steps=1, **given)
    assert [span.positions for span in maps.spans[0]] == spans


def test_the_prompts_of_a_batch_that_t5_of_flux_reads():
    pipe = flux()
    words = {"a red dog": ["dog"], "turtle": ["turtle"]}
    with record(pipe, words, steps=[0]) as maps:
        runs.run("flux", pipe, ["a cat", "a frog"], prompt_2=["a red dog", "turtle"], steps=1)
    assert [[span.positions for span in of] for of in maps.spans] == [[(2,)], [(0, 1)]]
