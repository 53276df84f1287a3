"""FLUX.3, of which diffusers has blocks alone: maps against the explicit softmax, positions of
words against the ids that reach the text encoder, a step of steering against a gradient taken by
hand, an edit against the same one in the kernel."""

from unittest.mock import patch

import PIL.Image
import pytest
import torch

from attncontrol import Descent, Where, edit, locate, record, steer
from attncontrol.families.known import family_of
from tests.kit.modular import BLOCKS, flux3
from tests.reference.loops import Softmax

PROMPT, CELLS, GRID, TEXT = "a red cat and a turtle", 24, (4, 6), 80
JOINT = ["single_transformer_blocks.0.attn", "single_transformer_blocks.1.attn"]
SELF = "mode_blocks.image.0.attn"
TWO = Where(kind="joint")


def run(pipe, prompt=PROMPT, **more):
    """Two pictures of one prompt, which is all that the blocks take."""
    call = {
        "num_images_per_prompt": 2, "height": 64, "width": 96, "num_inference_steps": 2,
        "text_encoder_out_layers": (1, 2), "generator": torch.Generator().manual_seed(3),
    }  # fmt: skip
    return pipe(prompt=prompt, output="latents", **call | more)


class Caught:
    """The ids that the text encoder reads, the arguments of the denoiser, and the probabilities of
    its sites in the order in which they run."""

    def __init__(self, pipe, monkeypatch):
        self.ids, self.calls, self.seen = [], [], {name: [] for name in (*JOINT, SELF)}
        softmax, denoiser = Softmax(monkeypatch), pipe.transformer
        self.hooks = [
            denoiser.get_submodule(name).register_forward_hook(
                lambda *_, name=name: self.seen[name].append(softmax.seen[-1])
            )
            for name in self.seen
        ]
        self.hooks += [
            pipe.text_encoder.register_forward_pre_hook(
                lambda _, __, given: self.ids.append(given["input_ids"][0].tolist()),
                with_kwargs=True,
            ),
            denoiser.register_forward_pre_hook(
                lambda _, __, given: self.calls.append(given), with_kwargs=True
            ),
        ]

    def end(self, monkeypatch):
        for hook in self.hooks:
            hook.remove()
        monkeypatch.undo()


@pytest.fixture(scope="module")
def pipe():
    return flux3()


@pytest.fixture
def caught(pipe, monkeypatch):
    caught = Caught(pipe, monkeypatch)
    caught.latents = run(pipe, negative_prompt="a frog")
    caught.end(monkeypatch)
    return caught


def pieces_at(pipe, ids, *pieces):
    texts = [t.strip("\u0120") for t in pipe.tokenizer.tokenizer.convert_ids_to_tokens(ids)]
    starts = [k for k in range(len(texts)) if tuple(texts[k : k + len(pieces)]) == pieces]
    (start,) = starts
    return list(range(start, start + len(pieces)))


def test_recorded_maps_equal_the_explicit_softmax(pipe, caught):
    """Calls are [cond, uncond] in turn; keys are those of the text, then of the picture."""
    words = {"cat": pieces_at(pipe, caught.ids[0], "cat"),
             "turtle": pieces_at(pipe, caught.ids[0], "tur", "tle")}  # fmt: skip
    plain = run(pipe, negative_prompt="a frog")
    with record(pipe, list(words), keep=("head", "step")) as maps:
        assert torch.equal(run(pipe, negative_prompt="a frog"), plain)
    assert list(maps.layers) == JOINT
    assert maps.prompts == (PROMPT, PROMPT)
    for name in JOINT:
        for step, p in enumerate(caught.seen[name][::2]):
            assert p.shape == (2, 2, TEXT + CELLS, TEXT + CELLS)
            for k, positions in enumerate(words.values()):
                expected = p[:, :, TEXT:, positions].sum(-1).unflatten(-1, GRID).float()
                own = maps.layers[name][:, 0, step, ..., k]
                torch.testing.assert_close(own, expected, rtol=0, atol=1e-6)


def test_unconditional_maps_are_those_of_the_negative_prompt(pipe, caught):
    with record(pipe, branches=("cond", "uncond"), keep=("head", "step")) as maps:
        run(pipe, negative_prompt="a frog")
    own = maps.of("uncond")
    assert [t.id for t in own.tokens[0]] == [caught.ids[1][t.index] for t in own.tokens[0]]
    for name in JOINT:
        for step, p in enumerate(caught.seen[name][1::2]):
            columns = [token.index for token in own.tokens[0]]
            expected = p[:, :, TEXT:, columns].transpose(-1, -2).unflatten(-1, GRID).float()
            own_maps = own.layers[name][:, 0, step].movedim(-1, 2)
            torch.testing.assert_close(own_maps, expected, rtol=0, atol=1e-6)


def test_blocks_of_the_picture_alone_are_self_attention(pipe):
    sites = {site.name: site.kind for site in family_of(pipe).sites(pipe.transformer)}
    assert sites == dict.fromkeys(JOINT, "joint") | {SELF: "self"}
    shapes = []

    def look(call, now):
        shapes.append((now.layout.grid, call.key.shape[2]))
        return call

    plain = run(pipe)
    with edit(pipe, look, where=Where(kind="self")):
        assert torch.equal(run(pipe), plain)
    assert set(shapes) == {(GRID, CELLS)}


@pytest.mark.parametrize("length", [8192, 100, 48, 20])
def test_words_are_where_the_text_encoder_reads_them(pipe, monkeypatch, length):
    """In texts filled up to multiples of 80, cut off at ``max_sequence_length``."""
    prompt = PROMPT + " and a dog" * 8
    caught = Caught(pipe, monkeypatch)
    run(pipe, prompt, num_inference_steps=1, max_sequence_length=length)
    caught.end(monkeypatch)
    family = family_of(pipe)
    encoding = {"max_sequence_length": length}
    tokens = family.tokens(pipe, prompt, encoding)
    assert [token.id for token in tokens] == caught.ids[0]
    assert len(tokens) == min(length, 80)
    assert [token.index for token in tokens] == list(range(len(tokens)))
    if length > 20:
        found = locate(pipe, prompt, "turtle", max_sequence_length=length)
        assert list(found.positions) == pieces_at(pipe, caught.ids[0], "tur", "tle")


def test_a_step_follows_the_gradient_taken_by_hand(pipe, caught, monkeypatch):
    """The loss is the sum over cells of the squared share of a word, mean over heads and sites; the
    unconditional call moves alike."""
    positions = pieces_at(pipe, caught.ids[0], "tur", "tle")

    def strength(maps):
        own = [k for k, token in enumerate(maps.tokens[0]) if token.index in positions]
        return maps.mean()[..., own].sum(-1).square().flatten(1).sum(1)

    given = caught.calls[0]
    again = Caught(pipe, monkeypatch)
    leaf = given["hidden_states"].clone().requires_grad_()
    pipe.transformer(**given | {"hidden_states": leaf})
    again.end(monkeypatch)
    shares = torch.stack([again.seen[name][0][:, :, TEXT:, positions].sum(-1) for name in JOINT])
    loss = shares.mean((0, 2)).square().sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    wanted = -20 * gradient
    descent = Descent(step_size=20.0, guided=0.5, thresholds={})
    denoiser = pipe.transformer
    for switch in (denoiser.enable_gradient_checkpointing, denoiser.disable_gradient_checkpointing):
        switch()
        calls = []
        with steer(pipe, strength, descent=descent, where=TWO):
            hook = denoiser.register_forward_pre_hook(
                lambda _, __, given, calls=calls: calls.append(given), with_kwargs=True
            )
            guided = run(pipe, negative_prompt="a frog")
            hook.remove()
        assert (guided - caught.latents).abs().max() > 1e-6
        for call in calls[:2]:
            change = call["hidden_states"] - given["hidden_states"]
            assert (change - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_an_edit_of_words_equals_the_same_in_the_kernel(pipe, caught, monkeypatch):
    """Nobody looks at a word in the conditional calls."""
    (position,) = pieces_at(pipe, caught.ids[0], "cat")

    def hide(call, now):
        allowed = torch.ones(len(call.key), 1, 1, call.key.shape[2], dtype=torch.bool)
        allowed[now.rows("cond"), ..., position] = False
        return call.masked(allowed)

    with edit(pipe, hide, where=TWO):
        edited = run(pipe, negative_prompt="a frog")
    kernel, turn = torch.nn.functional.scaled_dot_product_attention, [-1]

    def in_kernel(query, key, value, attn_mask=None, **options):
        if turn[0] >= 0 and turn[0] % 2 == 0 and key.shape[2] == TEXT + CELLS:
            attn_mask = torch.ones(key.shape[2], dtype=torch.bool)[None, None, None].clone()
            attn_mask[..., position] = False
        return kernel(query, key, value, attn_mask=attn_mask, **options)

    def next_call(*_):
        turn[0] += 1

    hook = pipe.transformer.register_forward_pre_hook(next_call)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", in_kernel)
    expected = run(pipe, negative_prompt="a frog")
    hook.remove()
    assert (edited - caught.latents).abs().max() > 1e-5
    torch.testing.assert_close(edited, expected, rtol=0, atol=1e-8)


def test_words_are_those_of_the_prompt_that_a_block_wrote():
    pipe, caption = flux3(writes_anew=True), "a turtle beside a cat"
    with (
        patch(f"{BLOCKS}.flux3.prompt_upsampler.upsample_prompt", lambda *_, **__: caption),
        record(pipe, ["cat"]) as maps,
    ):
        run(pipe, "a pet")
    assert maps.prompts == (caption, caption)
    assert maps["cat"].shape == (2, *GRID)


def test_references_follow_the_picture():
    pipe, layouts = flux3(workflow="image_conditioned"), set()

    def look(call, now):
        places = [now.layout, *now.layout.references]
        ends = [range(call.key.shape[2])[place.image_slice] for place in places]
        assert [end.start for end in ends] == [TEXT, *(end.stop for end in ends[:-1])]
        assert ends[-1].stop == call.key.shape[2]
        layouts.add(tuple(place.grid for place in places))
        return call

    pictures = [PIL.Image.new("RGB", size) for size in ((80, 48), (32, 64))]
    with edit(pipe, look, where=TWO):
        run(pipe, image=pictures, num_inference_steps=1)
    assert layouts == {(GRID, (3, 5), (4, 2))}


def test_the_distilled_form_has_the_conditional_branch_alone():
    pipe = flux3("Flux3DistilledAutoBlocks")
    plain = run(pipe)
    with record(pipe, ["cat"], branches=("cond",)) as maps:
        assert torch.equal(run(pipe), plain)
    assert maps.branches == ("cond",)
    assert maps["cat"].shape == (2, *GRID)
