"""Mochi, which computes every row of a batch by itself: seen as one call of all rows."""

import pytest
import torch
import torch.nn.functional as F

from attncontrol import edit, locate, record
from attncontrol.attention.sites import TEXT
from tests.kit.zoo_videos import mochi
from tests.reference.loops import Softmax

PROMPTS = ["a red cat and a turtle", "a dog"]
WORDS = {PROMPTS[0]: ["turtle"], PROMPTS[1]: ["dog"]}
GRID = 2, 4, 6
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def run(pipe, prompts=PROMPTS, **options):
    return pipe(
        prompts, height=64, width=96, num_frames=7, num_inference_steps=2, guidance_scale=2.0,
        output_type="latent", max_sequence_length=16,
        generator=torch.Generator().manual_seed(0), **options,
    )[0]  # fmt: skip


@pytest.fixture(scope="module")
def pipe():
    return mochi()


def blocks(pipe):
    return {f"transformer_blocks.{k}.attn1": b.attn1
            for k, b in enumerate(pipe.transformer.transformer_blocks)}  # fmt: skip


def test_recorded_maps_equal_the_explicit_softmax(pipe, monkeypatch):
    plain = run(pipe)
    softmax, seen = Softmax(monkeypatch), []
    hooks = [
        module.register_forward_hook(
            lambda *_, name=name: seen.append((name, softmax.seen[-2:]))  # conditional rows
        )
        for name, module in blocks(pipe).items()
    ]
    run(pipe)
    for hook in hooks:
        hook.remove()
    monkeypatch.undo()
    with record(pipe, WORDS, keep=("head", "step"), branches=("cond", "uncond")) as maps:
        assert torch.equal(run(pipe), plain)
    places = [locate(pipe, prompt, *words).positions for prompt, words in WORDS.items()]
    assert places == [(5, 6), (1,)]
    for name in blocks(pipe):
        for step, rows in enumerate(rows for of, rows in seen if of == name):
            assert [len(row) for row in rows] == [1, 1]
            assert rows[0].shape[-1] != rows[1].shape[-1]  # of the text of each
            for image, row in enumerate(rows):
                expected = row[0, :, :48, [48 + p for p in places[image]]].sum(-1)
                torch.testing.assert_close(
                    maps.layers[name][image, 0, step, ..., 0],
                    expected.unflatten(-1, GRID), rtol=0, atol=1e-6,
                )  # fmt: skip


def test_an_edit_of_words_equals_the_same_in_the_kernel(pipe, monkeypatch):
    kernel, calls, hidden = F.scaled_dot_product_attention, [0], []

    def hide(call, now):
        allowed = torch.ones(len(call.key), 1, 1, call.key.shape[2], dtype=torch.bool)
        for row in range(len(call.key))[now.rows("cond")]:
            image = now.image_of_row(row)
            (word,) = WORDS[PROMPTS[image]]
            allowed[row, ..., [48 + p for p in now.span(word, image).positions]] = False
        return call.masked(allowed)

    def in_kernel(query, key, value, **options):
        if query.shape[2] < 48 or query.shape != key.shape:  # the pooling of the text
            return kernel(query, key, value, **options)
        row, calls[0] = calls[0] % 4, calls[0] + 1
        allowed = torch.ones(key.shape[2], dtype=torch.bool)
        allowed[{2: [53, 54], 3: [49]}.get(row, [])] = False
        hidden.append(int((~allowed).sum()))
        return kernel(query, key, value, attn_mask=allowed[None, None, None], dropout_p=0.0)

    plain = run(pipe)
    with edit(pipe, hide, where=TEXT):
        edited = run(pipe)
    monkeypatch.setattr(F, "scaled_dot_product_attention", in_kernel)
    expected = run(pipe)
    assert hidden == [0, 0, 2, 1] * 4  # of two blocks in two steps
    assert (edited - plain).abs().max() > 1e-4
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-5)


def test_what_an_edit_returns_unchanged_changes_nothing(pipe):
    plain = run(pipe)
    with edit(pipe, lambda call, _: call.replace(query=call.query.clone()), where=TEXT):
        assert torch.equal(run(pipe), plain)
    processors = {type(block.processor).__name__ for block in blocks(pipe).values()}
    assert processors == {"MochiAttnProcessor2_0"}
