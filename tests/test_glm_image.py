"""GLM-Image: what stands in quotation marks is attended to, letter by letter; other words of the
prompt are refused."""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from diffusers import GlmImagePipeline, GlmImageTransformer2DModel
from diffusers.models.transformers.transformer_glm_image import GlmImageKVCache
from transformers import ByT5Tokenizer

from attncontrol import Descent, edit, invert, locate, record, steer
from attncontrol.edits import KeyMask
from attncontrol.errors import CallError, ModelError, WordError
from attncontrol.families import family_of
from attncontrol.running.session import Hooks, attach
from tests.kit.zoo import finish, t5, vae
from tests.kit.zoo_newer import flow, photo
from tests.reference.loops import Softmax

PROMPTS = ['an OPEN door below "OPEN" and \u201c12 \u00b5m\u201d', "a shop that says 'dog'"]
READ = [["12 \u00b5m", "OPEN"], ["dog"]]  # in the order of the quotation marks
GRID, CELLS, TEXT = (4, 6), 24, 14
OPEN = [9, 10, 11, 12]  # behind padding, six bytes, an end, and padding
DOG = [10, 11, 12]  # filled up from the left to 14


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    letters = ByT5Tokenizer()
    transformer = GlmImageTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        text_embed_dim=32, time_embed_dim=16, condition_dim=4, prior_vq_quantizer_codebook_size=8,
    )  # fmt: skip
    codes = vae(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    parts = letters, None, t5(letters), None, codes, transformer, flow()
    return finish(GlmImagePipeline(*parts), ("to_q",))


def run(pipe, prompt, **options):
    """Without its language model, which has written the tokens of the picture before."""
    rows = len(prompt) if isinstance(prompt, list) else 1
    written = torch.arange(rows * CELLS).view(rows, CELLS) % 8
    call = {"height": 64, "width": 96, "num_inference_steps": 2, "output_type": "latent",
            "prior_token_ids": written, "generator": torch.Generator().manual_seed(0)}  # fmt: skip
    return pipe(prompt, **call | options).images


def test_words_in_quotation_marks_are_letters_where_the_text_encoder_reads_them(pipe):
    rows, states, texts = [], [], []
    hook = pipe.text_encoder.register_forward_hook(
        lambda _, args, made: rows.append(args[0].tolist()) or states.append(made[0])
    )
    seen = []

    def before(call):
        seen.append(call.arguments["encoder_hidden_states"])
        texts.append(call.text)

    with attach(pipe).hooked(Hooks(before=before)):
        run(pipe, PROMPTS, num_inference_steps=1)
    hook.remove()
    assert [pipe.tokenizer.batch_decode(of, skip_special_tokens=True) for of in rows[:2]] == READ
    for image, place in enumerate((OPEN, DOG)):
        text = texts[0].tokens(image)
        assert len(text) == seen[0].shape[1] == TEXT
        assert list(texts[0].span(("OPEN#2", "dog")[image], image).positions) == place
        (row, first) = ((1, 1), (0, 0))[image]
        expected = states[image][row, first : first + len(place)]
        assert torch.equal(seen[0][image, place], expected)
        assert [token.id for token in text if token.id >= 0] == [
            id_ for row in rows[image] for id_ in row[: row.index(1) + 1]
        ]
    assert list(texts[0].span("\u00b5m", 0).positions) == [4, 5, 6]  # a letter of two bytes
    assert [token.id for token in texts[0].of("uncond").tokens(0)] == rows[2][0] == [1]
    found = locate(pipe, PROMPTS[1], "dog")
    assert found.positions == (0, 1, 2)


def test_recorded_maps_equal_the_explicit_softmax(pipe, monkeypatch):
    softmax = Softmax(monkeypatch)
    plain = run(pipe, PROMPTS)
    seen = [p for p in softmax.seen if p.shape[-1] > CELLS]
    monkeypatch.undo()
    words = {PROMPTS[0]: ["OPEN#2"], PROMPTS[1]: ["dog"]}
    with record(pipe, words, keep=("head", "step")) as maps:
        assert torch.equal(run(pipe, PROMPTS), plain)
    with record(pipe, direction="image->image", keep=("head", "step")) as among:
        run(pipe, PROMPTS)
    assert len(seen) == 8  # of two layers, the second half without text
    for step in range(2):
        for number, site in enumerate(maps.layers):
            whole = seen[4 * step + number]
            for image, places in enumerate((OPEN, DOG)):
                cells = whole[image, :, TEXT:]
                expected = cells[..., places].sum(-1).unflatten(-1, GRID).float()
                found = maps.layers[site][image, 0, step, ..., 0]
                assert torch.allclose(found, expected, rtol=0, atol=1e-6)
                expected = cells[..., TEXT:].unflatten(1, GRID).float()
                found = among.layers[site][image, 0, step]
                assert torch.allclose(found, expected, rtol=0, atol=1e-6)


@contextmanager
def caught(pipe, calls):
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _, __, named: calls.append(named), with_kwargs=True
    )
    yield
    hook.remove()


def test_a_step_follows_the_gradient_taken_by_hand(pipe, monkeypatch):
    calls, steered = [], []
    with caught(pipe, calls):
        run(pipe, PROMPTS[1])
    first = calls[0]["hidden_states"]
    leaf, softmax = first.clone().requires_grad_(), Softmax(monkeypatch)
    pipe.transformer(**calls[0] | {"hidden_states": leaf})
    shares = [p[0, :, 4:, :3].sum(-1).mean(0) for p in softmax.seen]
    monkeypatch.undo()
    (gradient,) = torch.autograd.grad(torch.stack(shares).mean(0).square().sum(), leaf)

    def strength(maps):
        return maps.mean()[..., :3].sum(-1).square().flatten(1).sum(1)

    descent = Descent(step_size=20.0, guided=0.5, thresholds={})
    with steer(pipe, strength, descent=descent), caught(pipe, steered):
        run(pipe, PROMPTS[1])
    moved = [call["hidden_states"] - first for call in steered[:2]]  # both branches
    assert gradient.abs().max() > 0
    assert torch.allclose(moved[0], -20 * gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))
    assert torch.equal(moved[1], moved[0])


def test_an_edit_of_a_word_equals_the_same_in_the_kernel(pipe, monkeypatch):
    with edit(pipe, KeyMask(words=["dog"])):
        found = run(pipe, PROMPTS[1])
    kernel, here = F.scaled_dot_product_attention, []

    def hidden(query, key, value, attn_mask=None, **more):
        if key.shape[2] == 4 + CELLS:
            here.append(None)
            attn_mask = torch.arange(key.shape[2])[None, None, None] > 2
        return kernel(query, key, value, attn_mask=attn_mask, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", hidden)
    expected = run(pipe, PROMPTS[1])
    monkeypatch.undo()
    assert len(here) == 4
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, run(pipe, PROMPTS[1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "word", "message"),
    [
        (
            PROMPTS[0],
            "door",
            r"'door' \(characters 8-12\) has no pos.*here OPEN \| 12 \u00b5m, and",
        ),
        (PROMPTS[0], "OPEN", r"\(characters 3-7\) has no positions.*by number if it stands else"),
        ("a red cat", "cat", "here nothing, and knows the rest of the prompt in another way"),
        ("a 'cat<extra_id_1>'", "cat", "has no positions"),  # a token by name
    ],
)
def test_other_words_are_refused(pipe, prompt, word, message):
    with pytest.raises(WordError, match=message):
        locate(pipe, prompt, word)
    with pytest.raises((WordError, CallError)), record(pipe, [word]):
        run(pipe, prompt)


def test_what_it_cannot_have_is_refused_by_name(pipe, monkeypatch):
    family, caches = family_of(pipe), GlmImageKVCache(2)
    assert family.latents(pipe.transformer, {"kv_caches": caches}) == (slice(None),)
    caches.set_mode("write")
    with pytest.raises(CallError, match=r"call it without image="):
        family.latents(pipe.transformer, {"kv_caches": caches})
    with pytest.raises(CallError, match=r"call it without image="):
        family.branches(pipe, 0, 0)
    with pytest.raises(ModelError, match="a language model writes other tokens"):
        invert(pipe, photo(96, 64, 0), "a 'dog'")
    monkeypatch.setattr(pipe, "get_glyph_texts", lambda _: [["cat"]])
    with pytest.raises(CallError, match=r"reads \['cat'\] of the prompt"):
        locate(pipe, PROMPTS[1], "dog")
