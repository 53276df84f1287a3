"""Attention through layers: rollout, flow, gradient-weighted relevance, and tokens that swallow
attention."""

import numpy as np
import pytest
import torch

from attncontrol import Where, locate, record
from attncontrol.analysis import aggregate, magnets, relevance, rollout
from attncontrol.errors import RecordError, SettingError, SiteError, WordError
from attncontrol.families.known import family_of
from attncontrol.verbs.picture import noised_call, record_picture
from tests.kit.records import maps_of, pictures
from tests.kit.tapping import tap
from tests.kit.zoo import ZOO
from tests.reference import analysis as reference


def layers_of(count=3, batch=2, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (3 * torch.randn(batch, size, size, generator=generator, dtype=torch.float64)).softmax(2)
        for _ in range(count)
    ]


def test_rollout():
    layers = layers_of()
    found = rollout.rollout(layers)
    for b in range(2):
        np.testing.assert_allclose(
            found[b], reference.rollout([of[b].numpy() for of in layers]), rtol=0, atol=1e-12
        )
    torch.testing.assert_close(found.sum(2), torch.ones(2, 5, dtype=torch.float64))
    eye = torch.eye(5, dtype=torch.float64)[None]
    assert torch.equal(rollout.rollout([eye, eye]), eye)
    assert torch.equal(
        rollout.rollout([0 * eye, 0 * eye], residual=0.0), eye
    )  # nothing is looked at
    torch.testing.assert_close(
        rollout.rollout(layers, residual=0.0), layers[2] @ layers[1] @ layers[0]
    )


def test_flow_by_hand():
    """One layer: the edge itself. Two layers that swap two tokens: what passes the narrowest
    edge."""
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    found = rollout.flow([swap], [0, 1], [[0], [1], [0, 1]])
    torch.testing.assert_close(
        found, torch.tensor([[0.5, 0.5, 1.0], [0.5, 0.5, 1.0]], dtype=torch.float64)
    )
    lopsided = torch.tensor(
        [[1.0, 0.0], [0.8, 0.2]], dtype=torch.float64
    )  # with the residual [[1, 0], [0.4, 0.6]]
    found = rollout.flow(
        [lopsided, swap], [0], [[0], [1]]
    )  # 0.5 over token 0, and the least of 0.5 and 0.4 over token 1
    torch.testing.assert_close(
        found, torch.tensor([[0.9, 0.5]], dtype=torch.float64), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("group", [[0], [3], [1, 2]])
def test_flow_is_the_solution_of_the_linear_program(group):
    layers = [of[0] for of in layers_of(4, 1, 5, seed=2)]
    found = rollout.flow(layers, [0, 4], [group])
    for query, value in zip((0, 4), found[:, 0], strict=True):
        assert float(value) == pytest.approx(
            reference.flow([of.numpy() for of in layers], query, group), abs=1e-6
        )


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_joint_attention_of_a_picture(name):
    pipe = ZOO[name]()
    picture, options = (
        pictures(1, 32, 48)[0],
        {"timestep": 500.0, "seed": 1, "max_sequence_length": 16},
    )
    layers = rollout.joint_of_picture(pipe, picture, "a cat", **options)
    words = record_picture(pipe, picture, "a cat", ["cat"], **options)
    sites = [site.name for site in family_of(pipe).sites(pipe.transformer) if site.kind == "joint"]
    text, cells = (48 if name == "sd3" else 16), 6
    assert len(layers) == len(sites)
    for name_, of_layer in zip(sites, layers, strict=True):
        assert of_layer.shape == (1, text + cells, text + cells)
        torch.testing.assert_close(of_layer.sum(2), torch.ones(1, text + cells), rtol=0, atol=1e-5)
        maps = rollout.to_text(of_layer, (2, 3))
        positions = words.spans[0][0].positions
        torch.testing.assert_close(
            maps[0][..., list(positions)].sum(-1),
            words.layers[name_][0, 0, 0, 0, ..., 0],
            rtol=0,
            atol=1e-5,
        )
    reached = rollout.rollout(layers)
    torch.testing.assert_close(reached.sum(2), torch.ones(1, text + cells), rtol=0, atol=1e-5)
    flowed = rollout.flow([of[0] for of in layers], [text], [[0], list(range(text))])
    assert 0 <= flowed[0, 0] <= flowed[0, 1] <= 1


def test_parts_that_do_not_add_up():
    maps = {
        of: maps_of(batch=1, grids=((2, 3),), tokens=6)
        for of in ("image->text", "text->image", "image->image")
    }
    whole = {**maps, "text->text": maps_of(batch=1, grids=((1, 6),), tokens=6)}
    with pytest.raises(RecordError, match="l0 looks at more than text and picture"):
        rollout.joint(whole)


def pairs(rng, heads, queries, keys):
    attention = rng.random((2, heads, queries, keys))
    return attention / attention.sum(-1, keepdims=True), rng.standard_normal(
        (2, heads, queries, keys)
    )


def test_relevance_in_one_sequence():
    rng = np.random.default_rng(0)
    layers = [pairs(rng, 3, 4, 4) for _ in range(3)]
    found = relevance.one_sequence([tuple(map(torch.from_numpy, of)) for of in layers])
    for b in range(2):
        expected = np.eye(4)
        for attention, gradient in layers:
            expected = expected + reference.a_bar(attention[b], gradient[b]) @ expected
        np.testing.assert_allclose(found[b], expected, rtol=0, atol=1e-12)
    by_hand = relevance.weighted(
        torch.tensor([[[[0.5, 0.5]], [[1.0, 0.0]]]]), torch.tensor([[[[2.0, -2.0]], [[1.0, 5.0]]]])
    )
    assert by_hand.tolist() == [[[1.0, 0.0]]]
    with pytest.raises(SettingError, match="at least one layer"):
        relevance.one_sequence([])


def test_relevance_between_two_sequences():
    rng = np.random.default_rng(1)
    shapes = {
        ("picture", "self"): (6, 6),
        ("picture", "cross"): (6, 4),
        ("text", "self"): (4, 4),
        ("text", "cross"): (4, 6),
    }
    order = [*shapes, ("picture", "self"), ("picture", "cross"), ("text", "cross")]
    layers = [(*which, *pairs(rng, 2, *shapes[which])) for which in order]
    start = relevance.Relevance.start(2, 6, 4, torch.zeros(1, dtype=torch.float64))
    found = relevance.two_sequences(
        [(*of[:2], *map(torch.from_numpy, of[2:])) for of in layers], start
    )
    for b in range(2):
        expected = reference.bi_modal(
            [(stream, kind, a[b], g[b]) for stream, kind, a, g in layers], 6, 4
        )
        for name, key in (
            ("picture", "ss"),
            ("text", "qq"),
            ("picture_text", "sq"),
            ("text_picture", "qs"),
        ):
            np.testing.assert_allclose(
                getattr(found, name)[b], expected[tuple(key)], rtol=0, atol=1e-12
            )
    assert found.picture_text.shape == (2, 6, 4)


def test_relevance_of_a_prediction(pipe):
    """Gradients of real calls: cross-attention of one site whose explicit probabilities are in the
    graph."""
    sites = {
        site.name: site
        for site in family_of(pipe).sites(pipe.unet)
        if site.stride == 4 and site.kind == "cross"
    }
    (name, site), *_ = sites.items()
    kept = []

    def explicit(call):
        kept.append(call.probabilities().requires_grad_())
        return kept[-1] @ call.value

    sample, text = (
        torch.randn(1, 4, 8, 12, dtype=torch.float64),
        torch.randn(1, 32, 32, dtype=torch.float64),
    )
    pipe.unet.requires_grad_(True)
    with tap(pipe.unet, {name: site}, explicit):
        score = pipe.unet(sample, 500, text).sample[..., :4].mean()
    (gradient,) = torch.autograd.grad(score, kept)
    start = relevance.Relevance.start(1, 6, 32, kept[0])
    found = relevance.attended(start, "picture", "cross", kept[0].detach(), gradient).picture_text
    torch.testing.assert_close(
        found, relevance.weighted(kept[0].detach(), gradient)
    )  # R_ss = R_qq = I, whose N is I
    assert found.max() > 0


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_relevance_of_words_in_a_picture(name):
    """Every attention and its gradient by hand, put together by the reference."""
    pipe, picture = ZOO[name](), pictures(1, 32, 48)[0]
    call = {} if name == "sd" else {"max_sequence_length": 16}
    options = {"timestep": 500.0, "seed": 1} | call
    score = torch.sum
    found = relevance.relevance_of_picture(
        pipe, picture, "a red turtle", ["red", "turtle"], score=score, **options
    )
    family = family_of(pipe)
    denoiser, part = (
        family.denoiser(pipe),
        noised_call(pipe, [picture], ["a red turtle"], **options),
    )
    grid = (4, 6) if name == "sd" else (2, 3)
    sites = [
        s
        for s in family.sites(denoiser)
        if s.kind == "joint" or family.layout(denoiser, part.arguments, s).grid == grid
    ]
    kept = []

    def explicit(of):
        kept.append(
            (of.query @ of.key.transpose(2, 3) / of.query.shape[3] ** 0.5)
            .softmax(3)
            .requires_grad_()
        )
        return kept[-1] @ of.value

    with tap(denoiser, {site.name: site for site in sites}, explicit):
        gradients = torch.autograd.grad(denoiser.forward(**part.arguments)[0].sum(), kept)
    pairs_of = [(a.detach()[0].numpy(), g[0].numpy()) for a, g in zip(kept, gradients, strict=True)]
    cells = grid[0] * grid[1]
    if name == "sd":
        layers = [("picture", site.kind, *of) for site, of in zip(sites, pairs_of, strict=True)]
        expected = reference.bi_modal(layers, cells, 32)["s", "q"]
    else:
        whole = np.eye(kept[0].shape[2])
        for attention, gradient in pairs_of:
            whole = whole + reference.a_bar(attention, gradient) @ whole
        expected = whole[:cells, cells:] if name == "sd3" else whole[-cells:, :-cells]
    for word, of_word in zip(("red", "turtle"), found, strict=True):
        positions = list(locate(pipe, "a red turtle", word, **call).positions)
        np.testing.assert_allclose(
            of_word.flatten(), expected[:, positions].sum(1), rtol=1e-6, atol=1e-12
        )
    assert found.shape == (2, *grid)
    assert found.max() > 0
    assert not relevance.relevance_of_picture(
        pipe, picture, "a red turtle", ["red"], **options
    ).requires_grad


def test_relevance_needs_sites_that_fit(pipe):
    for where, seen in (
        (Where(kind="self"), r"kinds \['self'\]"),
        (Where(kind="cross"), r"grids \[\(.*\), \(.*\)\]"),
    ):
        with pytest.raises(SiteError, match=seen):
            relevance.relevance_of_picture(
                pipe, pictures(1)[0], "a cat", ["cat"], timestep=500.0, where=where
            )
    with pytest.raises(WordError, match="'frog' is not in the prompt"):
        relevance.relevance_of_picture(pipe, pictures(1)[0], "a cat", ["frog"], timestep=500.0)
    assert not any("Control" in type(of).__name__ for of in pipe.unet.attn_processors.values())


def test_sinks_by_hand():
    maps = maps_of(
        batch=1, steps=1, heads=1, grids=((1, 2), (2, 2), (1, 1))
    )  # special, red, ca, t, special
    rows = [[0.5, 0.1, 0.2, 0.1, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.6]]
    for (name, of_layer), row in zip(maps.layers.items(), rows, strict=True):
        maps.layers[name] = torch.tensor(row).expand_as(of_layer).contiguous()
    torch.testing.assert_close(magnets.mass(maps)[:, 0], torch.tensor(rows))
    assert magnets.sinks(maps, factor=2.0).tolist() == [
        [True, False, False, False, False]
    ]  # above 0.4 in two of three layers
    assert magnets.sinks(maps, factor=2.0, most=0.7).sum() == 0
    assert magnets.sinks(maps, factor=2.0, most=0.2)[0].tolist() == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert magnets.stop_words(maps).sum() == 0
    first = magnets.shares(maps)[0]
    assert (first.site, first.special, first.stop_words, first.words) == (
        "l0",
        pytest.approx(0.6),
        0.0,
        pytest.approx(0.4),
    )
    found = magnets.suppressed(maps, factor=2.0)
    expected = torch.tensor([0.0, 0.3, 0.4, 0.3, 0.0]) / 1.0
    torch.testing.assert_close(found[0, 0, 0], expected, rtol=0, atol=1e-6)


def test_magnets_of_a_recording(pipe):
    prompt = "a cat and a turtle, the frog"
    call = {"height": 64, "width": 96, "num_inference_steps": 1, "output_type": "latent"}
    with record(pipe) as maps:
        pipe([prompt, "cat"], **call)
    texts = [
        [t.text for t, stops in zip(tokens, of, strict=True) if stops]
        for tokens, of in zip(maps.tokens, magnets.stop_words(maps), strict=True)
    ]
    assert texts == [["a", "and", "a", ",", "the"], []]
    for row, of_layer in zip(magnets.shares(maps), maps.layers.values(), strict=True):
        assert row.special + row.stop_words + row.words == pytest.approx(1)
        special = [[t.index for t in tokens if t.special] for tokens in maps.tokens]
        expected = np.mean(
            [float(of_layer[b, 0, 0, 0][..., special[b]].sum(-1).mean()) for b in range(2)]
        )
        assert row.special == pytest.approx(expected, abs=1e-6)
    found = magnets.suppressed(maps, factor=1000.0)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 8, 12))
    assert (found[1].amax((0, 1)) > 0).nonzero()[:, 0].tolist() == [1]
    words = aggregate.renormalised(
        maps.mean(), aggregate.without_special(maps) & ~magnets.stop_words(maps)
    )
    torch.testing.assert_close(found, words)
    with record(pipe, ["cat"]) as named:
        pipe("a cat", **call)
    with pytest.raises(WordError, match="in a recording of all tokens only"):
        magnets.mass(named)
