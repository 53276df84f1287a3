"""Examples of training: captions drawn anew, whose words they are, batches."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from attncontrol.sprites import path
from attncontrol.sprites.scenes import NOUNS, sample
from attncontrol.sprites.training.captions import Piece, drawn
from attncontrol.sprites.training.latents import Examples, encode_scenes, no_text
from attncontrol.sprites.training.text import make_tokenizer, t5_ids


@pytest.fixture(scope="module")
def scenes():
    vae = AutoencoderKL.from_pretrained(Path(path("sd")) / "vae")
    return encode_scenes(vae, seed=0, count=8, captions=4)


def said(ids):
    return make_tokenizer().decode(ids, skip_special_tokens=True).replace(" ,", ",")


@pytest.mark.parametrize("captions", [0, 4])
def test_tokens_belong_to_the_object_of_their_word(captions):
    arrays = drawn(Piece(3, 10, 60, captions))
    assert arrays["ids"].shape == arrays["owners"].shape == (50, max(captions, 1), 32)
    seen = set()
    for i in range(50):
        scene = sample(np.random.default_rng((3, 2, 10 + i)))
        for ids, owners in zip(arrays["ids"][i], arrays["owners"][i], strict=True):
            for k, (named, shown) in enumerate(zip(scene.named, scene.shown, strict=True)):
                fate = "missing" if shown is None else "swapped" if shown != named else "right"
                seen.add(fate)
                kept = "" if shown != named or named.color is None else f"{named.color} "
                expected = "" if shown is None else kept + named.noun
                assert said(ids[owners == k]) == expected
                assert arrays["coverage"][i, k].any() == (shown is not None)
    assert seen == {"missing", "swapped", "right"}


def test_captions_are_drawn_anew():
    arrays = drawn(Piece(3, 10, 60, 4))
    orders, replaced = 0, 0
    for i in range(50):
        scene = sample(np.random.default_rng((3, 2, 10 + i)))
        captions = [said(ids) for ids in arrays["ids"][i]]
        named = {thing.noun for thing in scene.named}
        there = {thing.noun for thing in scene.shown if thing is not None}
        found = [[word for word in re.findall("[a-z]+", c) if word in NOUNS] for c in captions]
        for nouns in found:
            assert len(nouns) == len(named)
            assert there <= set(nouns)
            assert set(nouns) == named or not (set(nouns) - there) & named
        orders += len({tuple(noun for noun in nouns if noun in there) for nouns in found}) > 1
        replaced += len(there) < len(named) and len({frozenset(nouns) for nouns in found}) > 1
    assert orders > 15
    assert replaced > 5


def test_own_captions_are_those_of_the_scenes():
    ids = drawn(Piece(5, 0, 5, 0))["ids"]
    expected = [sample(np.random.default_rng((5, 2, i))).caption for i in range(5)]
    assert [said(each[0]) for each in ids] == expected


def test_batches(scenes):
    assert {name: tuple(tensor.shape[1:]) for name, tensor in scenes.items()} == {
        "latents": (4, 16, 16), "owners": (4, 32), "coverage": (3, 16, 16), "texts": (4, 2, 32),
    }  # fmt: skip
    texts = scenes["texts"].flatten(0, 1).long()
    assert torch.equal(t5_ids(texts[:, 0]), texts[:, 1])
    rng = torch.Generator().manual_seed(0)
    examples = Examples(scenes, 2.0, 400, True, no_text())
    latents, noise, t, texts, owners, coverage = examples(rng)
    which = (scenes["latents"].float()[None] * 2 == latents[:, None]).flatten(2).all(2)
    pick = which.int().argmax(1)
    assert which.any(1).all()
    assert torch.equal(coverage, scenes["coverage"][pick].float())
    empty = (texts == no_text()).flatten(1).all(1)
    assert 0.05 < empty.float().mean() < 0.15
    assert (owners[empty] == -1).all()
    for k in (~empty).nonzero().flatten()[:50].tolist():
        same = (scenes["texts"][pick[k]] == texts[k]).flatten(1).all(1)
        assert any(torch.equal(o, owners[k]) for o in scenes["owners"][pick[k]][same])
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    logits = (t / 1000).logit()
    assert (logits.mean().item(), logits.std().item()) == pytest.approx((0, 1), abs=0.03)


def test_times_are_one_of_every_share(scenes):
    rng = torch.Generator().manual_seed(0)
    t = Examples(scenes, 1.0, 50, False, no_text())(rng)[2]
    assert torch.equal((t / 20).floor(), torch.arange(50.0))
    assert torch.equal(t, t.floor())
    t = Examples(scenes, 1.0, 50, True, no_text())(rng)[2] / 1000
    quantiles = 0.5 * (1 + torch.erf(t.logit() / math.sqrt(2)))
    assert torch.equal((quantiles * 50).floor(), torch.arange(50.0))
