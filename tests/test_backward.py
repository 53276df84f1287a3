"""Passes with a gradient: the kernel that they do without, in several threads."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.backends import cuda

from attncontrol.errors import CouplingError
from attncontrol.running.backward import differentiable


def test_the_kernel_is_off_until_the_last_thread_is_done():
    assert cuda.cudnn_sdp_enabled()
    one, other = differentiable(), differentiable()
    one.__enter__()
    assert not cuda.cudnn_sdp_enabled()
    other.__enter__()
    one.__exit__(None, None, None)
    assert not cuda.cudnn_sdp_enabled()
    other.__exit__(None, None, None)
    assert cuda.cudnn_sdp_enabled()


def test_one_that_the_user_switched_off_stays_off():
    cuda.enable_cudnn_sdp(False)
    try:
        with pytest.raises(ValueError, match="broken"), differentiable():
            raise ValueError("broken")
        assert not cuda.cudnn_sdp_enabled()
    finally:
        cuda.enable_cudnn_sdp(True)


def test_weights_of_the_forward_without_gradients_of_their_own():
    """As if they had not been replaced before the backward; then they can be trained again."""
    layer = nn.LayerNorm(4, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(layer(given).square().sum(), given)
    given = x.clone().requires_grad_()
    with differentiable(layer):
        loss = layer(given).square().sum()
        assert not layer.weight.requires_grad
        layer.weight.data = torch.full_like(layer.weight, torch.nan)
        (found,) = torch.autograd.grad(loss, given)
    assert torch.equal(found, expected)
    assert layer.weight.requires_grad


@pytest.mark.parametrize("part", [False, True])
def test_what_no_backward_runs_through_is_freed(part):
    """Outputs that their own functions hold, after a loss of an earlier layer, or none."""
    x = torch.randn(3, 4, requires_grad=True)
    with differentiable():
        early = x.softmax(-1)
        late = early.softmax(-1).exp()
        if part:
            torch.autograd.grad(early[0, 0], x)
    held = [weakref.ref(tensor) for tensor in (early, late)]
    del early, late
    gc.collect()
    assert [of() for of in held] == [None, None]


def test_a_change_in_place_of_what_the_gradient_needs_is_an_error():
    x = torch.randn(3, 4, requires_grad=True)
    with differentiable(), pytest.raises(CouplingError, match=r"shape \[3, 4\] .* in place after"):
        half = x / 2
        loss = half.square().sum()
        half.add_(1)
        torch.autograd.grad(loss, x)


@pytest.mark.skipif(
    not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"),
    reason="older versions of torch do not tell which hooks are open",
)
def test_hooks_of_the_user_act_inside():
    counts = {"packed": 0, "unpacked": 0}

    def count(name, tensor):
        counts[name] += 1
        return tensor

    layer, x = nn.Linear(4, 4), torch.randn(3, 4, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).softmax(-1).square().sum(), x)
    mine = saved_tensors_hooks(lambda t: count("packed", t), lambda t: count("unpacked", t))
    for around in (mine, save_on_cpu()):
        with around, differentiable(layer):
            loss = layer(x).softmax(-1).square().sum()
            layer.weight.data = torch.full_like(layer.weight, torch.nan)
            (found,) = torch.autograd.grad(loss, x)
        layer.load_state_dict({"weight": torch.eye(4), "bias": torch.zeros(4)})
        (again,) = torch.autograd.grad(layer(x).softmax(-1).square().sum(), x)
        assert torch.equal(found, expected)
        expected = again
    assert counts["packed"] >= counts["unpacked"] >= 3
