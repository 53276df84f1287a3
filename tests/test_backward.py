"""Passes with a gradient: the kernel that they do without, in several threads."""

import pytest
import torch
from torch import nn
from torch.backends import cuda

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
