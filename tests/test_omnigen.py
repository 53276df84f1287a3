"""OmniGen with pictures to read: rows [text and pictures, nothing, pictures alone], pictures among
the tokens of the prompt. Ids are those that reach the transformer, of which the cells of a picture
have 0; latents are compared with loops written from the paper (``tests.reference.three_rows``).
Rotations are of float32."""

import copy
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing

from attncontrol import Descent, edit, invert, locate, perturb, record, retrace, steer
from attncontrol.attention.sites import Where
from attncontrol.edits import GRAG, KeyMask, SoftIdentity
from attncontrol.errors import CallError, CouplingError, SchedulerError
from attncontrol.inversion import FireFlow, NegativePrompt
from attncontrol.running.observers import named
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.picture import noised_call, record_picture
from tests.kit.zoo_newer import DRAWN, omnigen, photo, transforms
from tests.reference.loops import Softmax
from tests.reference.three_rows import sampled

PROMPTS = ["a red cat in <img><|image_1|></img>",
           "<img><|image_2|></img> and a red dog, not <img><|image_1|></img>"]  # fmt: skip
PICTURES = [[photo(96, 64, 0)], [photo(64, 96, 1), photo(64, 40, 2)]]
GRIDS = [[(4, 6)], [(2, 4), (6, 4)]]  # in the order of the text; pictures are cropped to cells
BRANCHES = ("cond", "uncond", "reference")
STEPS, TEXT_SCALE, PICTURE_SCALE, NOISE = 2, 2.5, 1.6, torch.Generator().manual_seed(0)
LATENTS = torch.randn(2, 4, 8, 12, generator=NOISE, dtype=torch.float64)


@pytest.fixture(scope="module")
def pipe():
    with pytest.MonkeyPatch.context() as patched, transforms():
        patched.setattr(DRAWN, lambda latents: latents.mode())
        pipe = omnigen()
        call = type(pipe.multimodal_processor).__call__
        short = ["low quality" if isinstance(one, str) else one for one in call.__defaults__]
        patched.setattr(call, "__defaults__", tuple(short))  # the negative prompt
        yield pipe


def run(pipe, prompts=PROMPTS, pictures=PICTURES, **call):
    call = {"latents": LATENTS, "num_inference_steps": STEPS, "height": 64, "width": 96} | call
    return pipe(
        prompts, pictures, guidance_scale=TEXT_SCALE, img_guidance_scale=PICTURE_SCALE,
        output_type="latent", **call,
    ).images  # fmt: skip


@contextmanager
def caught(pipe):
    """The arguments of every call of the transformer."""
    calls = []

    def called(transformer, args, kwargs):
        calls.append(named(transformer, args, kwargs))

    handle = pipe.transformer.register_forward_pre_hook(called, with_kwargs=True)
    yield calls
    handle.remove()


@pytest.fixture(scope="module")
def given(pipe):
    """The arguments of the first call."""
    with caught(pipe) as calls:
        run(pipe)
    return calls[0]


def places(row):
    """Where the pictures lie in a row of ids."""
    zeros = [-1, *[k for k, one in enumerate(row) if one == 0], len(row) + 1]
    ends = [k for k, (a, b) in enumerate(pairwise(zeros)) if b - a > 1]
    return [(zeros[a + 1], zeros[b] + 1) for a, b in pairwise(ends)]


def columns(pipe, row, word):
    """Where the pieces of a word last follow one another in a row of ids."""
    pieces = pipe.tokenizer.convert_ids_to_tokens(row)
    texts = [piece.strip("\u0120") for piece in pieces]
    return next(
        list(range(start, stop))
        for start in reversed(range(len(row)))
        for stop in range(start + 1, start + len(word) + 1)
        if "".join(texts[start:stop]) == word
    )


def look(pipe, see, **call):
    session = attach(pipe)

    def after(one, prediction):
        see(session, one, prediction)
        return prediction

    with session.hooked(Hooks(after=after)):
        run(pipe, **call)


def test_all_rows_are_read_as_the_transformer_embeds_them(pipe, given):
    """Two images of each prompt."""
    calls = []
    with caught(pipe) as caught_calls:
        look(pipe, lambda _, one, __: calls.append(one), latents=None, num_images_per_prompt=2)
    ids, text = caught_calls[0]["input_ids"].tolist(), calls[0].text
    assert calls[0].branches == BRANCHES
    assert text.prompts == tuple(prompt for prompt in PROMPTS for _ in range(2))
    alone = "<img><|image_1|></img>"
    others = [alone, alone, *[f"{alone} <img><|image_2|></img>"] * 2]
    assert text.of("reference").prompts == tuple(others)
    for k, branch in enumerate(BRANCHES):
        for image, row in enumerate(ids[4 * k : 4 * k + 4]):
            tokens, prompt = text.of(branch).tokens(image), text.of(branch).prompts[image]
            assert [token.id for token in tokens] == row
            said = [token for token in tokens if not token.special]
            assert (said[0].start, said[-1].end) == (0, len(prompt))
            spelled = "".join(prompt[token.start : token.end] for token in said)
            assert spelled == prompt.replace("<|image_1|>", "").replace("<|image_2|>", "")
    assert [len(places(row)) for row in given["input_ids"].tolist()] == [1, 2, 0, 0, 1, 2]


def test_what_begins_every_text_is_read_once(pipe, monkeypatch):
    """The processor takes it from what follows a picture, if its id is 1."""
    begin = pipe.tokenizer.convert_ids_to_tokens(1)
    monkeypatch.setattr(pipe, "tokenizer", copy.deepcopy(pipe.tokenizer))
    monkeypatch.setattr(pipe.multimodal_processor, "text_tokenizer", pipe.tokenizer)
    pipe.tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, 1)]
    )
    seen = []
    look(pipe, lambda _, one, __: seen.append(one), num_inference_steps=1)
    ids = seen[0].arguments["input_ids"].tolist()
    for image, row in enumerate(ids[:2]):
        tokens = seen[0].text.tokens(image)
        assert [token.id for token in tokens] == row
        assert [token.special for token in tokens if token.id == 1] == [True]


def test_maps_of_all_branches_equal_the_explicit_softmax(pipe, given, monkeypatch):
    plain, ids = run(pipe), given["input_ids"].tolist()
    words = {PROMPTS[0]: ["cat", "quality"], PROMPTS[1]: ["dog", "quality"]}
    with record(pipe, words, keep=("head", "step"), branches=BRANCHES) as maps:
        assert torch.equal(run(pipe), plain)
    softmax = Softmax(monkeypatch)
    run(pipe)
    length = len(ids[0])
    seen = [weights[:, :, length + 1 :] for weights in softmax.seen if len(weights) == 6]
    for n, layer in enumerate(maps.layers.values()):
        for branch in range(3):
            for image, prompt in enumerate(PROMPTS):
                for k, word in enumerate(words[prompt]):
                    found = layer[image, branch, ..., k]
                    if branch == 2 or (branch == 1) != (word == "quality"):
                        assert found.isnan().all()
                        continue
                    row = 2 * branch + image
                    at = columns(pipe, ids[row], word)
                    wanted = torch.stack([step[row] for step in seen[n :: len(maps.layers)]])
                    wanted = wanted[..., at].sum(-1).unflatten(-1, (4, 6)).float()
                    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_words_are_located_beside_pictures(pipe):
    for prompt, pictures, word in zip(PROMPTS, PICTURES, ("cat", "dog"), strict=True):
        with caught(pipe) as calls:
            run(pipe, prompt, pictures, latents=LATENTS[:1], num_inference_steps=1)
        found = locate(pipe, prompt, word, input_images=pictures)
        assert list(found.positions) == columns(pipe, calls[0]["input_ids"][0].tolist(), word)
    with pytest.raises(CallError, match=r"names picture 2, but input_images=\.\.\. has 1"):
        locate(pipe, PROMPTS[1], "dog", input_images=PICTURES[0])


def test_pictures_that_are_made_smaller_have_as_many_cells_as_the_processor_gives_them(pipe):
    call = {"max_input_image_size": 80, "latents": LATENTS[:1], "num_inference_steps": 1}
    for size in ((90, 60), (200, 70), (170, 161), (8, 8)):
        with caught(pipe) as calls, record(pipe, ["dog"]) as maps:
            run(pipe, "<img><|image_1|></img> a dog", [photo(*size, 0)], **call)
        ids = calls[0]["input_ids"][0].tolist()
        assert list(maps.spans[0][0].positions) == columns(pipe, ids, "dog")
        assert len(maps.tokens[0]) == len(ids)
    run(pipe, num_inference_steps=1)


def test_references_are_those_of_every_row(pipe, given):
    found = {}

    def see(call, now):
        found[now.branches, now.images] = now.layout
        return call

    with edit(pipe, see, where=Where(kind="joint")):
        run(pipe, num_inference_steps=1)
        look(pipe, lambda session, call, _: session.forward(call.of("cond", [1]), "weakened"))
    ids = given["input_ids"].tolist()
    layout = found[BRANCHES, (0, 1)]
    assert layout.references == ()
    for row, grids in enumerate([*GRIDS, [], [], GRIDS[0], GRIDS[1][::-1]]):
        own = layout.rows([row]).references
        assert [reference.grid for reference in own] == grids
        assert [(r.image_slice.start, r.image_slice.stop) for r in own] == places(ids[row])
    (alone,) = [layout for (_, images), layout in found.items() if images == (1,)]
    assert [reference.grid for reference in alone.references] == GRIDS[1]


def test_passes_of_some_images_are_rows_of_its_own(pipe):
    errors = []

    def see(session, call, prediction):
        for k, branch in enumerate(BRANCHES):
            for images in ([0], [1], [1, 0]):
                alone = session.forward(call.of(branch, images), "probe")[0]
                errors.append((alone - prediction[[2 * k + i for i in images]]).abs().max())

    look(pipe, see)
    assert len(errors) == 9 * STEPS
    assert max(errors) < 1e-9


def by_hand(pipe, given, **more):
    """``more`` is made of ``predict(x, t, branch)``, which runs all rows."""

    def predict(x, t, branch):
        rows = torch.cat([x] * 3)
        arguments = given | {"hidden_states": rows, "timestep": t.expand(6)}
        return pipe.transformer(**arguments)[0].chunk(3)[BRANCHES.index(branch)]

    with torch.no_grad():
        pipe.scheduler.set_timesteps(sigmas=np.linspace(1, 0, STEPS + 1)[:STEPS])
        made = {name: make(predict) for name, make in more.items()}
        return sampled(
            pipe.scheduler, predict, LATENTS.clone(), text=TEXT_SCALE, picture=PICTURE_SCALE, **made
        )


def test_steered_latents_equal_a_loop_by_hand(pipe, given, monkeypatch):
    ids = given["input_ids"].tolist()

    positions = [columns(pipe, ids[image], word) for image, word in enumerate(("cat", "dog"))]

    def shares(maps):
        own = [[k for k, token in enumerate(of) if token.index in at]
               for of, at in zip(maps.tokens, positions, strict=True)]  # fmt: skip
        found = maps.mean()
        return torch.stack([found[i][..., k].sum(-1).square().sum() for i, k in enumerate(own)])

    descent = Descent(step_size=5.0, thresholds={}, guided=1.0)
    with steer(pipe, shares, descent=descent) as trace:
        guided = run(pipe)
    plain, softmax = run(pipe), Softmax(monkeypatch)

    def gradient(predict):
        def change(i, x, t):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                softmax.seen.clear()
                predict(leaf, t, "cond")
                maps = torch.stack(softmax.seen).mean((0, 2))[:, len(ids[0]) + 1 :]
                loss = sum(maps[k][:, at].sum(-1).square().sum() for k, at in enumerate(positions))
                (found,) = torch.autograd.grad(loss, leaf)
            return -5.0 * (1 - 0.5 * i / (STEPS - 1)) ** 0.5 * found

        return change

    expected = by_hand(pipe, given, change=gradient)
    assert len(trace.steps) == STEPS
    assert (guided - plain).abs().max() > 1e-4
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-6)


def test_perturb_weakens_the_row_of_text_and_pictures(pipe, given, monkeypatch):
    with perturb(pipe, SoftIdentity(), scale=2.0, where=Where(kind="joint")):
        pushed = run(pipe)

    def weakened(predict):
        def more(x, t, cond):
            with monkeypatch.context() as patched:
                patched.setattr(
                    F, "scaled_dot_product_attention", lambda _, __, value, **___: value
                )
                return 2.0 * (cond - predict(x, t, "cond"))

        return more

    plain = run(pipe)
    assert (pushed - plain).abs().max() > 1e-3
    torch.testing.assert_close(plain, by_hand(pipe, given), rtol=0, atol=1e-6)
    torch.testing.assert_close(pushed, by_hand(pipe, given, more=weakened), rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", ["words", "references", "second"])
def test_edits_equal_the_same_in_the_kernel(pipe, given, change, monkeypatch):
    ids, kernel = given["input_ids"].tolist(), F.scaled_dot_product_attention
    edits = {"words": KeyMask(words=["red"]), "references": GRAG(0.5)}
    edits["second"] = GRAG(0.5, reference=1)

    def in_kernel(query, key, value, attn_mask=None, **options):
        if len(query) == 6:
            key, attn_mask = key.clone(), attn_mask.clone()
            for row, of_row in enumerate(ids):
                if change == "words" and row < 2:
                    attn_mask[row, ..., at[row]] = -torch.inf
                for start, stop in places(of_row)[change == "second" :] * (change != "words"):
                    own = key[row, :, start:stop]
                    mean = own.mean(1, keepdim=True)
                    key[row, :, start:stop] = mean + 0.5 * (own - mean)
        return kernel(query, key, value, attn_mask=attn_mask, **options)

    at = [columns(pipe, row, "red") for row in ids[:2]]
    with edit(pipe, edits[change]):
        found = run(pipe)
    plain = run(pipe)
    with monkeypatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", in_kernel)
        expected = run(pipe)
    assert (found - plain).abs().flatten(1).amax(1).gt(1e-5).tolist() == [change != "second", True]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_prompts_without_pictures_beside_others(pipe):
    """Their third row reads the negative prompt."""
    seen = []
    pictures = [PICTURES[0], None]
    look(pipe, lambda _, one, __: seen.append(one), prompts=[PROMPTS[0], "a dog"],
         pictures=pictures, num_inference_steps=1)  # fmt: skip
    text = seen[0].text
    assert text.of("reference").prompts[1] == text.of("uncond").prompts[1]
    ids = seen[0].arguments["input_ids"].tolist()
    for k, branch in enumerate(BRANCHES):
        for image in range(2):
            read = [token.id for token in text.of(branch).tokens(image)]
            assert read == ids[2 * k + image]
    refused = pytest.raises(CouplingError, match="given 1 reference pictures")
    with refused, edit(pipe, GRAG(0.5, reference=1)):
        run(pipe, [PROMPTS[0], "a dog"], pictures)


def test_pictures_are_inverted_without_either_guidance(pipe, given):
    """Beside pictures to read; one step from the noise z makes z + e."""
    photos = [photo(96, 64, seed) for seed in (3, 4)]
    with caught(pipe) as calls:
        kept = invert(pipe, photos, PROMPTS, input_images=PICTURES, num_inference_steps=1)
    clean, noise = kept.latents[:, 1], kept.latents[:, 0]
    now = {"hidden_states": torch.cat([clean] * 3), "timestep": calls[0]["timestep"]}
    with torch.no_grad():
        made = pipe.transformer(**given | now)[0]
    torch.testing.assert_close(noise, clean - made[:2], rtol=0, atol=1e-6)
    with retrace(pipe, kept):
        again = run(pipe, latents=None, num_inference_steps=1)
    torch.testing.assert_close(again, clean, rtol=0, atol=1e-9)


def test_methods_that_do_not_know_its_schedule_or_third_row_are_refused(pipe):
    photos, call = [photo(96, 64, 3)], {"prompt": PROMPTS[:1], "num_inference_steps": 1}
    kept = invert(pipe, photos, method=NegativePrompt(), input_images=PICTURES[:1], **call)
    third = pytest.raises(CallError, match="has one of reference pictures too")
    with third, retrace(pipe, kept):
        run(pipe, PROMPTS[:1], PICTURES[:1], latents=None, num_inference_steps=1)
    with pytest.raises(SchedulerError, match=r"not for FlowMatchEuler.* with invert_sigmas=True"):
        invert(pipe, photos, method=FireFlow(), **call)


def test_pictures_are_noised_by_a_schedule_that_is_turned_round(pipe):
    """At 1 they have no noise, at 0 nothing else."""
    one, call = photo(96, 64, 3), {"seed": 5, "input_images": [PICTURES[0]]}
    seen = [
        noised_call(pipe, [one], PROMPTS[:1], timestep=time, **call) for time in (0.0, 0.25, 1.0)
    ]
    noise, mixed, clean = (each.latents for each in seen)
    drawn = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(5)).double()
    torch.testing.assert_close(noise[0], drawn)
    torch.testing.assert_close(mixed, 0.75 * noise + 0.25 * clean, rtol=0, atol=1e-6)
    maps = record_picture(pipe, one, PROMPTS[0], ["cat"], timestep=0.25, **call)
    assert maps.sigmas == (0.75,)
    assert maps["cat"].shape == (1, 4, 6)
