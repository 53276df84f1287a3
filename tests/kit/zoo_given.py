"""Tiny pipelines that make something of pictures which they are given: random weights, seeded,
real classes."""

import torch
from diffusers import QwenImageLayeredPipeline, QwenImageTransformer2DModel

from tests.kit.zoo import finish
from tests.kit.zoo_chat import byte_tokenizer
from tests.kit.zoo_newer import ALL_QUERIES, GUIDED, QWEN, Known, flow, photo, qwen_vae, qwen_vl


def layered():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        use_additional_t_cond=True, use_layer3d_rope=True,
    )  # fmt: skip
    pipe = QwenImageLayeredPipeline(
        flow(), qwen_vae(), qwen_vl(tokenizer), tokenizer, None, transformer
    )
    before = pipe.prompt_template_encode.partition("{}")[0]
    pipe.prompt_template_encode_start_idx = len(tokenizer(before).input_ids)
    return finish(pipe, ALL_QUERIES)


GIVEN = {
    "qwen-layered": Known(
        layered, GUIDED | {"image": photo(96, 64, 0), "layers": 2, "output_type": "pt"}, prompts=1,
        grid=(3, 4, 6), references=((4, 6),),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx,
        patches=((f"{QWEN}layered.calculate_dimensions", lambda *_: (96, 64)),),
    ),
}  # fmt: skip
