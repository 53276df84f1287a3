"""Attention on groups of keys without the softmax of all keys: by indicator values, and by the
kernel's own normaliser."""

import pytest
import torch
import torch.nn.functional as F

from attncontrol.attention import call as processors
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.sites import Site
from tests.kit.tapping import tap
from tests.kit.zoo import flux

SITE = Site("somewhere", "joint", 3, 2)


@pytest.fixture(params=[torch.float64, torch.float32, torch.bfloat16])
def call(request, monkeypatch):
    """Long keys, as of a large picture: [text 7, picture 30]."""
    monkeypatch.setattr(processors, "_SHORT", 0)
    rng = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, 37, 8, generator=rng, dtype=torch.float64).to(request.param)
        for _ in range(3)
    )
    return AttentionCall(SITE, query, key, value)


def columns():
    marked = torch.zeros(2, 37, 2)
    marked[0, [1, 4], 0] = 1
    marked[0, 2, 1] = 1
    marked[1, 6, 0] = 1
    return marked


def explicit(call, queries):
    logits = call.query.double() @ call.key.double().transpose(-1, -2) / 8**0.5
    if call.mask is not None:
        logits = logits + (
            torch.where(call.mask, 0.0, -torch.inf)
            if call.mask.dtype == torch.bool
            else call.mask.double()
        )
    return (logits.softmax(-1)[:, :, queries] @ columns()[:, None].double()).double()


TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 3e-2}


def test_the_normaliser_comes_with_an_identical_output(call):
    with torch.no_grad():
        output, known = call.run_with_normaliser()
    assert torch.equal(output, F.scaled_dot_product_attention(call.query, call.key, call.value))
    assert known.normaliser.shape == (2, 3, 37)
    queries = slice(7, None)
    torch.testing.assert_close(
        known.mass(columns(), queries).double(),
        explicit(call, queries),
        rtol=0,
        atol=TOLERANCE[call.query.dtype],
    )
    torch.testing.assert_close(known.rows(slice(1, 2)).normaliser, known.normaliser[1:])


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_indicator_values_give_the_same_mass(call, mask):
    keep = torch.rand(2, 1, 1, 37, generator=torch.Generator().manual_seed(1)) > 0.3
    call = processors.replace(
        call,
        mask={None: None, "bool": keep, "float": torch.where(keep, 0.5, -3.0).to(call.query)}[mask],
    )
    with torch.no_grad():
        _, known = call.run_with_normaliser()
    assert (known.normaliser is None) == (mask is not None)
    queries = slice(7, None)
    torch.testing.assert_close(
        call.mass(columns(), queries).double(),
        explicit(call, queries),
        rtol=0,
        atol=TOLERANCE[call.query.dtype],
    )


def test_gradients_of_the_mass(call):
    if call.query.dtype != torch.float64:
        pytest.skip("derivatives are checked in float64")
    queries, weights = slice(7, None), torch.randn(2, 3, 30, 2, dtype=torch.float64)
    gradients = []
    for mass in (
        lambda c: c.run_with_normaliser()[1].mass(columns(), queries),
        lambda c: explicit(c, queries),
    ):
        leaf = call.query.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            (mass(processors.replace(call, query=leaf)) * weights).sum(), leaf
        )
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)


def test_every_context_still_sees_the_call(monkeypatch):
    """A recorder that asks for the normaliser must not bypass a context entered after it."""
    monkeypatch.setattr(processors, "_SHORT", 0)
    transformer = flux().transformer
    name = "transformer_blocks.0.attn"
    site = {name: Site(name, "joint", 2, 2)}
    seen = []

    def outer(call):
        output, known = call.run_with_normaliser()
        seen.append(known.normaliser is None)
        return output

    def inner(call):
        return torch.zeros_like(call.run())

    arguments = {
        "hidden_states": torch.randn(1, 24, 16, dtype=torch.float64),
        "encoder_hidden_states": torch.randn(1, 4, 32, dtype=torch.float64),
        "pooled_projections": torch.randn(1, 32, dtype=torch.float64),
        "timestep": torch.ones(1, dtype=torch.float64), "img_ids": torch.zeros(24, 3),
        "txt_ids": torch.zeros(4, 3),
    }  # fmt: skip
    with torch.no_grad(), tap(transformer, site, inner):
        zeroed = transformer(**arguments).sample
    with torch.no_grad(), tap(transformer, site, outer), tap(transformer, site, inner):
        torch.testing.assert_close(transformer(**arguments).sample, zeroed)
    with torch.no_grad(), tap(transformer, site, outer):
        transformer(**arguments)
    assert seen == [True, False]
