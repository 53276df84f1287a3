"""Anima, of which diffusers has blocks alone: maps against the explicit softmax, a step of steering
against a gradient taken by hand, an edit against the same one in the kernel. The text has a
position for every piece of T5's tokenizer."""

import pytest
import torch
import torch.nn.functional as F

from attncontrol import Descent, edit, locate, record, steer
from attncontrol.attention.sites import TEXT
from tests.kit.modular import anima
from tests.reference.loops import Softmax

PROMPTS = ["a red cat and a turtle", "a dog"]
GRID = (4, 6)


@pytest.fixture(scope="module")
def pipe():
    return anima()


def run(pipe, prompt=PROMPTS, **more):
    call = {
        "prompt": prompt, "height": 64, "width": 96, "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(3), "output": "latents",
    }  # fmt: skip
    return pipe(**call | more)


def places(pipe, prompt, *pieces):
    ids = pipe.t5_tokenizer(prompt).input_ids
    texts = [t.strip("\u2581") for t in pipe.t5_tokenizer.convert_ids_to_tokens(ids)]
    at = [k for k in range(len(texts)) if tuple(texts[k : k + len(pieces)]) == pieces]
    return [at[0] + k for k in range(len(pieces))]


class Watched:
    """The probabilities of every cross-attention, and the arguments of the denoiser."""

    def __init__(self, pipe, monkeypatch):
        self.seen, self.calls, softmax = {}, [], Softmax(monkeypatch)
        self.hooks = [
            module.register_forward_hook(
                lambda *_, name=name: self.seen.setdefault(name, []).append(softmax.seen[-1])
            )
            for name, module in pipe.transformer.named_modules()
            if name.endswith("attn2")
        ]
        self.hooks.append(
            pipe.transformer.register_forward_pre_hook(
                lambda _, __, given: self.calls.append(given), with_kwargs=True
            )
        )

    def end(self, monkeypatch):
        for hook in self.hooks:
            hook.remove()
        monkeypatch.undo()


def test_maps_equal_the_explicit_softmax(pipe, monkeypatch):
    plain = run(pipe)
    watched = Watched(pipe, monkeypatch)
    run(pipe)
    watched.end(monkeypatch)
    words = {PROMPTS[0]: ["turtle"], PROMPTS[1]: ["dog"]}
    with record(pipe, words, keep=("head", "step"), branches=("cond", "uncond")) as maps:
        assert torch.equal(run(pipe), plain)
    at = [places(pipe, PROMPTS[0], "tur", "tle"), places(pipe, PROMPTS[1], "dog")]
    assert [list(locate(pipe, p, w).positions) for p, (w,) in words.items()] == at
    assert maps.branches == ("cond", "uncond")
    assert len(maps.tokens[0]) == len(pipe.t5_tokenizer(PROMPTS[0]).input_ids)
    for name, layer in maps.of("cond").layers.items():
        for step, rows in enumerate(watched.seen[name][::2]):
            for image, columns in enumerate(at):
                wanted = rows[image][..., columns].sum(-1).unflatten(-1, GRID)
                found = layer[image, 0, step, ..., 0]
                torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-6)


def test_a_step_follows_the_gradient_taken_by_hand(pipe, monkeypatch):
    watched = Watched(pipe, monkeypatch)
    run(pipe, PROMPTS[0])
    watched.seen.clear()
    leaf = watched.calls[0]["hidden_states"].clone().requires_grad_()
    pipe.transformer(**watched.calls[0] | {"hidden_states": leaf})
    watched.end(monkeypatch)
    columns = places(pipe, PROMPTS[0], "tur", "tle")
    shares = [rows[0][0][..., columns].sum(-1) for rows in watched.seen.values()]
    loss = torch.cat(shares).mean(0).square().sum()
    (gradient,) = torch.autograd.grad(loss, leaf)

    def strength(maps):
        of_word = [k for k, token in enumerate(maps.tokens[0]) if token.index in columns]
        return maps.mean()[..., of_word].sum(-1).square().flatten(1).sum(1)

    steered, first = [], watched.calls[0]["hidden_states"]
    with steer(pipe, strength, descent=Descent(step_size=20.0, guided=0.5, thresholds={})):
        hook = pipe.transformer.register_forward_pre_hook(  # after the one that moves the latents
            lambda _, __, given: steered.append(given["hidden_states"]), with_kwargs=True
        )
        run(pipe, PROMPTS[0])
    hook.remove()
    change = steered[0] - first
    assert gradient.abs().max() > 0
    torch.testing.assert_close(change, -20 * gradient, rtol=1e-3, atol=1e-6)


def test_an_edit_of_words_equals_the_same_in_the_kernel(pipe, monkeypatch):
    """Nobody looks at a word of each picture in the conditional rows, which come first."""
    words = {PROMPTS[0]: ("turtle", "tur", "tle"), PROMPTS[1]: ("dog", "dog")}
    kernel, hidden = F.scaled_dot_product_attention, []
    at = [places(pipe, prompt, *pieces) for prompt, (_, *pieces) in words.items()]

    def hide(call, now):
        allowed = torch.ones(len(call.key), 1, 1, call.key.shape[2], dtype=torch.bool)
        for row in range(len(call.key))[now.rows("cond")]:
            image = now.image_of_row(row)
            word = words[PROMPTS[image]][0]
            allowed[row, ..., list(now.span(word, image).positions)] = False
        return call.masked(allowed)

    def in_kernel(query, key, value, **options):
        """Two blocks of self- and cross-attention, conditional and not, in every step."""
        if query.shape[2] != 24:  # of the autoencoder
            return kernel(query, key, value, **options)
        number = len(hidden)
        hidden.append(number % 8 in (1, 3))
        allowed = torch.ones(len(key), 1, 1, key.shape[2], dtype=torch.bool)
        for row, columns in enumerate(at if hidden[-1] else ()):
            allowed[row, ..., columns] = False
        return kernel(query, key, value, **options | {"attn_mask": allowed})

    plain = run(pipe)
    with edit(pipe, hide, where=TEXT):
        edited = run(pipe)
    hook = pipe.transformer.register_forward_pre_hook(  # behind the encoder and the conditioner
        lambda *_: monkeypatch.setattr(F, "scaled_dot_product_attention", in_kernel)
    )
    expected = run(pipe)
    hook.remove()
    monkeypatch.undo()
    assert len(hidden) == 16
    assert (edited - plain).abs().max() > 1e-5
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-6)
