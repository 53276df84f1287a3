"""Blocks of UNets, written out, in which a method changes more than attention. Rows of the batch:
branch by branch, in each branch all images."""

from contextlib import contextmanager

import torch


@contextmanager
def features_of_source(block, source, images, steps):
    """Plug-and-Play in a residual block, in its first ``steps`` calls: shortcut + f, where f, which
    the block adds, is that of the source's row in the same branch."""
    calls = []

    def forward(x, temb):
        h = block.conv1(torch.nn.functional.silu(block.norm1(x)))
        h = h + block.time_emb_proj(torch.nn.functional.silu(temb))[:, :, None, None]
        f = block.conv2(torch.nn.functional.silu(block.norm2(h)))
        shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
        rows = []
        for row in range(len(f)):
            image = row % images
            taken = row - image + source if len(calls) < steps else row
            rows.append((shortcut[row] + f[taken]) / block.output_scale_factor)
        calls.append(len(rows))
        return torch.stack(rows)

    block.forward = forward
    try:
        yield
    finally:
        del block.forward


@contextmanager
def boxes_beside_texts(unet):
    """ReGround in all transformer blocks of a GLIGEN UNet: cross-attention of what the boxes have
    not changed, added to what they have."""
    blocks = [module for module in unet.modules() if hasattr(module, "fuser")]

    def forward(block, x, encoder_hidden_states, cross_attention_kwargs):
        x = x + block.attn1(block.norm1(x))
        boxes = block.fuser(x, cross_attention_kwargs["gligen"]["objs"])
        x = boxes + block.attn2(block.norm2(x), encoder_hidden_states)
        return x + block.ff(block.norm3(x))

    for block in blocks:
        block.forward = lambda x, block=block, **given: forward(
            block, x, given["encoder_hidden_states"], given["cross_attention_kwargs"]
        )
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
