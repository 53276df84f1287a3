"""A short call of the tiny Stable Diffusion, and its attention by an explicit softmax."""

import torch

PROMPT = "a cat and a turtle"
LAYER = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"


def run(pipe, prompt=PROMPT, *, seed=0, height=64, width=96, steps=3, images=1, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return pipe(
        prompt, height=height, width=width, num_inference_steps=steps, num_images_per_prompt=images,
        generator=generator, output_type="latent", **kwargs,
    ).images  # fmt: skip


class Reference:
    """Head-wise probabilities of one layer by hooks on its projections and an explicit softmax."""

    def __init__(self, pipe, name):
        self.attn, self.maps, self.kept = pipe.unet.get_submodule(name), [], {}

    def __enter__(self):
        keep = self.kept.__setitem__
        self.hooks = [
            self.attn.to_q.register_forward_hook(lambda _m, _i, o: keep("q", o)),
            self.attn.to_k.register_forward_hook(lambda _m, _i, o: keep("k", o)),
            self.attn.register_forward_hook(lambda *_: self.add()),
        ]
        return self.maps

    def add(self):
        q, k = (self.kept[n].unflatten(-1, (self.attn.heads, -1)).transpose(1, 2) for n in "qk")
        self.maps.append((q @ k.transpose(-1, -2) * self.attn.scale).softmax(-1))

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()
