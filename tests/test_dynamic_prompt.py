"""Dynamic prompt learning against a loop written from the paper, and what it is refused for."""

import pytest
import torch
from torch.func import functional_call

from attncontrol import Trajectory, invert, retrace
from attncontrol.batch.inversions import inversion, require_inversion
from attncontrol.errors import CallError, ModelError, RecordError, WordError
from attncontrol.inversion import DynamicPrompt
from attncontrol.inversion._leakage import background_of, leakage
from attncontrol.prompts.tokens import Span
from tests.kit.photos import call, clean, photos, unet_of, with_ddim
from tests.kit.state import changes, left_behind, state
from tests.kit.zoo import EXTRA, ZOO
from tests.reference import dynamic_prompt as reference
from tests.reference.attend_and_excite import mean_cross_attention
from tests.reference.inversion import ddim_step, levels

PROMPTS = ["a red cat", "a blue frog and a car"]
NOUNS = [[3], [6]]  # of the second
STEPS, SCALE = 2, 4.0
METHOD = DynamicPrompt(SCALE, rounds=2, iterations=2)
GRID = (2, 3)


@pytest.fixture(scope="module")
def pipe():
    return with_ddim()


@pytest.fixture(scope="module")
def kept(pipe):
    return invert(pipe, photos(), PROMPTS, method=METHOD, num_inference_steps=STEPS)


def encoder_of(pipe, prompt):
    """encode(places, vectors) by another table, in which the ids there have these embeddings."""
    ids = pipe.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    (name,) = [name for name, _ in pipe.text_encoder.named_parameters() if "token_emb" in name]
    table = dict(pipe.text_encoder.named_parameters())[name]

    def encode(places, vectors):
        other = table.index_put((ids[0, list(places)],), vectors)
        return functional_call(pipe.text_encoder, {name: other}, (ids,))[0][0]

    return encode, table[ids[0]].detach()


def test_the_nouns_are_watched_without_guidance(pipe):
    """As the picture is inverted; what learns has both branches, and one more for each gradient."""
    rows = []
    hook = pipe.unet.register_forward_hook(lambda _, __, made: rows.append(len(made[0])))
    method = DynamicPrompt(SCALE, rounds=1, iterations=1)
    invert(pipe, photos(1), PROMPTS[0], method=method, num_inference_steps=STEPS)
    hook.remove()
    assert rows[: 2 * STEPS] == [1] * 2 * STEPS
    assert 2 in rows


def test_it_is_the_loop_of_the_paper(pipe, kept):
    """The second of two pictures."""
    pipe.scheduler.set_timesteps(STEPS)
    own, path = pipe.scheduler, list(kept.latents[1])
    level = levels(own.alphas_cumprod, own.timesteps, own.final_alpha_cumprod)
    encode, vectors = encoder_of(pipe, PROMPTS[1])
    null = pipe.encode_prompt([""], "cpu", 1, False)[0][0]

    def attend(z, t, text, kind="attn2"):
        return mean_cross_attention(pipe.unet, z[None], t, text[None], GRID, kind)

    with torch.no_grad():
        text = encode([], vectors[:0])
        looks = [
            [attend(z, t, text, kind) for z, t in zip(path, own.timesteps, strict=False)]
            for kind in ("attn2", "attn1")
        ]
        mask = reference.background(*(sum(each) / STEPS for each in looks), NOUNS)
    assert 0 < mask.sum() < 6
    nouns, nulls, end = reference.learned(
        lambda vectors: encode([3, 6], vectors), attend, unet_of(pipe), path, vectors[[3, 6]],
        null, mask, NOUNS, lambda i, z, m: ddim_step(z, m, level[i], level[i + 1]),
        own.timesteps, SCALE, 2, 2, 1e-5,
    )  # fmt: skip
    assert torch.allclose(kept.nouns[1], torch.stack(nouns), rtol=0, atol=1e-7)
    assert torch.allclose(kept.embeddings[1], torch.stack(nulls), rtol=0, atol=1e-6)
    assert (kept.nouns[1, -1] - vectors[[3, 6]]).abs().max() > 2e-3
    assert kept.places.tolist() == [[3, -1], [3, 6]]
    with retrace(pipe, kept):
        back = pipe(PROMPTS, guidance_scale=SCALE, **call(STEPS)).images
    assert torch.allclose(back[1], end, rtol=0, atol=1e-6)
    assert torch.allclose(kept.latents[:, -1], clean(pipe, photos()), rtol=0, atol=1e-6)


def test_other_prompts_have_the_nouns_that_they_keep(pipe, kept):
    """In every step, wherever they stand; the words of the text encoder elsewhere."""
    target, seen = "a red cat and a blue frog and a car", []
    with retrace(pipe, kept[1]):  # whose own hook is the first
        hook = pipe.unet.register_forward_pre_hook(
            lambda _, __, named: seen.append(named["encoder_hidden_states"].clone()),
            with_kwargs=True,
        )
        pipe([PROMPTS[1], target], guidance_scale=SCALE, **call(STEPS))
    hook.remove()
    assert len(seen) == STEPS
    for step, states in enumerate(seen):
        for row, prompt, places in ((2, PROMPTS[1], [3, 6]), (3, target, [7, 10])):
            vectors = kept.nouns[1, step, : len(places)]
            expected = encoder_of(pipe, prompt)[0](places, vectors)
            assert torch.allclose(states[row], expected, rtol=0, atol=1e-9)
        assert torch.equal(states[0], kept.embeddings[1, step])
        assert torch.equal(states[1], states[0])


def test_it_goes_on_where_it_was_stopped(pipe, kept, tmp_path):
    file, count, before = tmp_path / "kept.safetensors", [0], state(pipe)
    ended = 3 * (STEPS - 1)  # to noise, along it, back; the last step of each ends the run

    def stop(*_):
        count[0] += 1
        if count[0] == ended:
            raise KeyboardInterrupt
        return {}

    settings = {"method": METHOD, "num_inference_steps": STEPS, "to": file}
    with pytest.raises(KeyboardInterrupt):
        invert(pipe, photos(), PROMPTS, callback_on_step_end=stop, **settings)
    assert not changes(before, state(pipe))
    begun = Trajectory.load(file)
    assert 0 < begun.optimised < STEPS
    assert begun.nouns.shape[:2] == begun.embeddings.shape[:2]
    whole = invert(pipe, photos(), PROMPTS, **settings)
    for one in (whole, Trajectory.load(file)):
        assert torch.equal(one.nouns, kept.nouns)
        assert torch.equal(one.embeddings, kept.embeddings)
        assert torch.equal(one.places, kept.places)
        assert one.method == METHOD


def test_words_that_are_named(pipe, tmp_path):
    method = DynamicPrompt(SCALE, rounds=1, iterations=1, words=["red", "car"])
    prompt = "a red frog and a car"
    one = invert(pipe, photos(1), prompt, method=method, num_inference_steps=1)
    assert one.places.tolist() == [[2, 6]]
    assert Trajectory.load(one.save(tmp_path / "one.safetensors")).method == method
    assert (one.nouns[0, 0] - encoder_of(pipe, prompt)[1][[2, 6]]).abs().max() < 2e-3
    with pytest.raises(WordError, match="dog"):
        invert(pipe, photos(1), prompt, method=DynamicPrompt(words=["dog"]))


@pytest.mark.parametrize("nouns", [[[1]], [[1], [2, 4], [3]]], ids=len)
def test_losses_and_background(nouns):
    generator = torch.Generator().manual_seed(3)
    maps = (3 * torch.randn(4, 5, 7, generator=generator, dtype=torch.float64)).softmax(-1)
    cells = (3 * torch.randn(4, 5, 4, 5, generator=generator, dtype=torch.float64)).exp()
    cells = cells / cells.sum((2, 3), keepdim=True)
    spans = [Span("", tuple(positions)) for positions in nouns]
    behind = background_of(maps, cells, spans)
    expected = reference.background(maps, cells.flatten(2), nouns)
    assert torch.equal(behind.double(), expected.double())
    mask = torch.arange(20).reshape(4, 5) < 7
    found = leakage(maps, spans, [slice(1, -1)], mask)
    values = reference.leaks(maps, nouns, mask)
    assert [float(loss) for loss in found] == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_other_models_are_refused(name):
    pipe = ZOO[name]()
    with pytest.raises(ModelError, match=r"one text encoder of Stable Diffusion 1 and 2"):
        invert(pipe, photos(1), "a cat", method=DynamicPrompt(), **EXTRA.get(name, {}))
    with pytest.raises(ModelError, match="invert with NullText"):
        require_inversion("dynamic-prompt", pipe, {"guidance_scale": 2.0})
    assert inversion("dynamic-prompt", {"guidance_scale": 2.0}) == DynamicPrompt(2.0)


def test_texts_that_the_pipeline_changes_are_refused(pipe, kept):
    def louder(_, __, said):
        said.last_hidden_state = 2 * said.last_hidden_state
        return said

    hook = pipe.text_encoder.register_forward_hook(louder)
    try:
        with pytest.raises(CallError, match=r"the pipeline changes what it says \(clip_skip"):
            invert(pipe, photos(1), "a cat", method=METHOD, num_inference_steps=1)
        with pytest.raises(CallError, match="clip_skip"), retrace(pipe, kept):
            pipe(PROMPTS, guidance_scale=SCALE, **call(STEPS))
    finally:
        hook.remove()
    assert not left_behind(pipe)


def test_a_file_whose_nouns_do_not_fit_is_none(kept, tmp_path):
    from dataclasses import replace

    wrong = replace(kept, places=kept.places[:, :1]).save(tmp_path / "wrong.safetensors")
    with pytest.raises(RecordError, match="no trajectory of this version"):
        Trajectory.load(wrong)
