"""DreamLite: the cells of its picture are the left half of every line, which edits, losses and
records see as a row."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attncontrol import edit, invert, record, retrace
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.ordered import in_order
from attncontrol.attention.sites import Site, Where
from attncontrol.batch.generate import generate
from attncontrol.edits import KeyMask, SmoothedQuery
from attncontrol.errors import CallError
from attncontrol.inversion import NegativePrompt, NullText
from attncontrol.running.session import Hooks, attach
from tests.kit.photos import odd, reconstructed
from tests.kit.zoo_newer import photo
from tests.kit.zoo_unets import dreamlite

SIDES = {"height": 64, "width": 128}
GRID = (2, 4)  # of cells at stride 4: the only ones that look at each other
SELF = Where("self")
LEFT = (torch.arange(8) // 4 * 8 + torch.arange(8) % 4).tolist()
RIGHT = [cell + 4 for cell in LEFT]


@pytest.fixture(scope="module")
def pipe():
    return dreamlite()


def run(pipe, prompt="a red cat", **options):
    call = {"num_inference_steps": 2, "output_type": "latent", **SIDES}
    call["generator"] = torch.Generator().manual_seed(0)
    return pipe(prompt, **call | options).images


def attention_by_hand(pipe, monkeypatch, change, **options):
    """A run in which ``change(query, key)`` comes before every attention of cells to cells."""
    kernel, seen = F.scaled_dot_product_attention, []

    def changed(query, key, value, attn_mask=None, **more):
        if query.shape[2] == key.shape[2] == len(LEFT + RIGHT):
            query, key, attn_mask = change(query, key)
            scale = query.shape[-1] ** -0.5
            seen.append((query @ key.mT * scale).softmax(-1))
        return kernel(query, key, value, attn_mask=attn_mask, **more)

    with monkeypatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", changed)
        return run(pipe, **options), seen


def test_cells_look_at_the_cells_of_their_own_picture(pipe, monkeypatch):
    plain, seen = attention_by_hand(pipe, monkeypatch, lambda q, k: (q, k, None))
    with record(pipe, direction="image->image", where=SELF, keep=("head", "step")) as maps:
        assert torch.equal(run(pipe), plain)
    sites = sorted(maps.layers, key=lambda name: name[:3] == "up_")  # as they run
    assert len(sites) == 4
    for number, site in enumerate(sites):
        for step in range(2):
            probabilities = seen[step * len(sites) + number][1]  # conditional
            expected = probabilities[:, LEFT][:, :, LEFT].unflatten(1, GRID).float()
            assert torch.allclose(maps.layers[site][0, 0, step], expected, rtol=0, atol=1e-6)


def test_a_region_is_hidden_in_the_left_half_of_every_line(pipe, monkeypatch):
    hidden = torch.ones(1, 1, 1, 16, dtype=torch.bool)
    hidden[..., [2, 3, 10, 11]] = False  # the right half of the left picture
    expected, _ = attention_by_hand(pipe, monkeypatch, lambda q, k: (q, k, hidden))
    with edit(pipe, KeyMask((0.5, 0.0, 1.0, 1.0)), where=SELF):
        found = run(pipe)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(found, run(pipe), rtol=0, atol=1e-4)


def test_queries_are_smoothed_over_the_picture_alone(pipe, monkeypatch):
    def mean(query, key):
        query = query.clone()
        query[:, :, LEFT] = query[:, :, LEFT].mean(2, keepdim=True)
        return query, key, None

    expected, _ = attention_by_hand(pipe, monkeypatch, mean)
    with edit(pipe, SmoothedQuery(), where=SELF):
        found = run(pipe)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)


def test_the_given_picture_is_the_reference_in_the_right_half(pipe, monkeypatch):
    plain, seen = attention_by_hand(
        pipe, monkeypatch, lambda q, k: (q, k, None), image=photo(128, 64, 0)
    )
    shares = []

    def look(call, now):
        (beside,) = now.layout.references
        assert (now.layout.grid, beside.grid) == (GRID, GRID)
        assert now.branches == ("uncond", "reference", "cond")
        shares.append(call.probabilities()[:, :, now.layout.image_slice, beside.image_slice])
        return call

    with edit(pipe, look, where=SELF):
        assert torch.equal(run(pipe, image=photo(128, 64, 0)), plain)
    assert len(shares) == len(seen) == 8
    for found, whole in zip(shares, seen, strict=True):
        assert torch.allclose(found, whole[:, :, LEFT][..., RIGHT], rtol=0, atol=1e-12)


@pytest.mark.parametrize("image", [None, photo(128, 64, 0)], ids=["alone", "beside"])
def test_all_rows_are_read_as_the_text_encoder_is_told(pipe, image):
    ids, texts = [], []

    def heard(_, __, named):
        ids.extend(named["input_ids"].tolist())

    hook = pipe.text_encoder.register_forward_pre_hook(heard, with_kwargs=True)
    with attach(pipe).hooked(Hooks(before=lambda call: texts.append((call.branches, call.text)))):
        run(pipe, negative_prompt="a dog and a cat", image=image)
    hook.remove()
    branches, text = texts[0]
    mode = "generate" if image is None else "edit"
    dropped = getattr(pipe, f"prompt_template_encode_{mode}_start_idx")
    assert len(branches) == len(ids) == (2 if image is None else 3)
    assert text.of("uncond").prompts == text.of("reference").prompts == ("a dog and a cat",)
    for branch, row in zip(branches, ids, strict=True):
        read = [token.id for token in text.of(branch).tokens(0)]
        pad = pipe.tokenizer.pad_token_id
        assert read == [one for one in row if one != pad or branch == "cond"][dropped:]


def test_a_cell_of_both_pictures_is_refused(pipe):
    with pytest.raises(CallError, match="multiple of 4, not 10"), record(pipe, ["cat"]):
        run(pipe, width=80)


@pytest.mark.parametrize("method", [None, NegativePrompt(), NullText(2.0, iterations=1)])
def test_photos_come_back(method):
    pipe = odd(dreamlite())
    pixels = np.asarray(photo(128, 64, 1))
    options = {} if method is None else {"method": method}
    kept = invert(pipe, pixels, "a cat", num_inference_steps=2, size=(64, 128), **options)
    with retrace(pipe, kept):
        made = run(pipe, "a cat", output_type="pt", guidance_scale=2.0)
    assert kept.latents.shape == (1, 3, 4, 8, 16)
    if method is None:
        assert torch.allclose(made, reconstructed(pipe, [pixels]), rtol=0, atol=1e-5)


def test_commands_and_searches_make_one_picture_at_a_time(pipe):
    call = {"num_inference_steps": 2, "negative_prompt": "a frog"}
    jobs = [("a red cat", 0), ("a dog", 1)]
    made = list(generate(pipe, jobs, None, batch=1, **SIDES, **call))
    for picture, (prompt, seed) in zip(made, jobs, strict=True):
        generator = torch.Generator().manual_seed(seed)
        (expected,) = run(pipe, prompt, generator=generator, output_type="pil", **call)
        assert picture.image == expected
    several = pytest.raises(CallError, match=r"DreamLitePipeline makes pictures of one .*batch=1")
    with several:
        list(generate(pipe, jobs, None, **call))
    with several:
        invert(pipe, [photo(128, 64, 0), photo(128, 64, 1)], ["a cat", "a dog"])


SITES = {"self": Site("mid.attn1", "self", 2, 4), "cross": Site("mid.attn2", "cross", 2, 4)}


@pytest.mark.parametrize("kind", SITES)
def test_the_kernel_is_given_the_order_of_the_model(kind):
    """Of whole calls, whatever rows and heads they have; more keys are no longer its own."""
    given, size = [], 16 if kind == "self" else 5

    def kernel(call):
        given.append(call)

    def drawn(*shape):
        return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[2]))

    query, key, mask = drawn(3, 2, 16, 8), drawn(3, 2, size, 8), drawn(1, 1, 16, size)
    call = AttentionCall(SITES[kind], query, key, key + 1, mask, backend=kernel)
    seen = in_order(call, torch.tensor([*LEFT, *RIGHT]))
    assert torch.equal(seen.query[:, :, 8], query[:, :, 4])
    expected = F.scaled_dot_product_attention(query, key, key + 1, mask)
    assert torch.equal(seen.run(), expected[:, :, [*LEFT, *RIGHT]])
    names = ("query", "key", "value", "mask")
    assert all(torch.equal(getattr(given[0], name), getattr(call, name)) for name in names)
    part = seen.rows([1]).of_heads([1])
    assert torch.equal(part.kernel()[0, 0], expected[1, 1, [*LEFT, *RIGHT]])
    wider = seen.replace(key=torch.cat([seen.key, seen.key], 2), mask=None,
                         value=torch.cat([seen.value, seen.value], 2))  # fmt: skip
    plain = F.scaled_dot_product_attention(query, key, key + 1)[:, :, [*LEFT, *RIGHT]]
    assert torch.allclose(wider.kernel(), plain, rtol=0, atol=1e-6)
