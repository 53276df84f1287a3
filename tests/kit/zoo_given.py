"""Tiny pipelines that make something of pictures which they are given: random weights, seeded,
real classes."""

import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLHunyuanImageRefiner,
    HunyuanImageRefinerPipeline,
    HunyuanImageTransformer2DModel,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    QwenImageLayeredPipeline,
    QwenImageTransformer2DModel,
    ZImageOmniPipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Qwen3VLForConditionalGeneration,
    Siglip2ImageProcessorPil,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)

from tests.kit.zoo import finish, vae
from tests.kit.zoo_chat import MARKS, byte_tokenizer, picture_tokenizer
from tests.kit.zoo_newer import (
    ALL_QUERIES,
    GUIDED,
    JOY,
    QWEN,
    ChatProcessor,
    Known,
    flow,
    photo,
    qwen3,
    qwen3_vl,
    qwen_vae,
    qwen_vl,
    wake,
    wan_vae,
)


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


def refiner():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = HunyuanImageTransformer2DModel(
        in_channels=8, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, mlp_ratio=1.0, patch_size=(1, 1, 1),
        text_embed_dim=16, rope_axes_dim=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    codes = AutoencoderKLHunyuanImageRefiner(
        latent_channels=2, block_out_channels=(24,) * 5, layers_per_block=1
    )
    pipe = HunyuanImageRefinerPipeline(
        flow(), codes, qwen_vl(tokenizer, layers=4), tokenizer, transformer,
        AdaptiveProjectedMixGuidance(guidance_scale=2.0),
    )  # fmt: skip
    before = pipe.prompt_template_encode.partition("{}")[0]
    pipe.prompt_template_encode_start_idx = len(tokenizer(before).input_ids)
    return finish(pipe, ALL_QUERIES)


def joyimage_plus():
    torch.manual_seed(0)
    tokenizer = picture_tokenizer()
    transformer = JoyImageEditPlusTransformer3DModel(
        in_channels=4, hidden_size=32, num_attention_heads=2, text_dim=16, mlp_width_ratio=1.0,
        num_layers=2, rope_dim_list=[4, 6, 6],
    )  # fmt: skip
    language = qwen3_vl(tokenizer, Qwen3VLForConditionalGeneration)
    language.config.image_token_id = tokenizer.convert_tokens_to_ids(MARKS[1])
    parts = language, tokenizer, wake(transformer), ChatProcessor(tokenizer)
    pipe = JoyImageEditPlusPipeline(flow(), wan_vae(), *parts)
    before = pipe.prompt_template_encode["multiple_images"].partition("{}")[0]
    dropped = len(tokenizer(before).input_ids)
    pipe.prompt_template_encode_start_idx = {"multiple_images": dropped}
    return finish(pipe, ALL_QUERIES)


def omni():
    """Its autoencoder encodes in bfloat16, whatever it is."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        cap_feat_dim=16, axes_dims=[8, 4, 4], axes_lens=[512, 32, 32], siglip_feat_dim=16,
    )  # fmt: skip
    for name in ("x_pad_token", "cap_pad_token", "siglip_pad_token"):
        torch.nn.init.normal_(getattr(transformer, name))
    looker = Siglip2VisionModel(
        Siglip2VisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_patches=16,
        )
    )  # fmt: skip
    pipe = ZImageOmniPipeline(
        flow(), vae(shift_factor=0.1), qwen3(tokenizer), tokenizer, transformer, looker,
        Siglip2ImageProcessorPil(max_num_patches=16),
    )  # fmt: skip
    finish(pipe, ("attention.to_q",))
    pipe.vae.to(torch.bfloat16)
    return pipe


GIVEN = {
    "omni": Known(
        omni, {}, prompts=1, calls=1, cond=0, left_out=("context_refiner",), tolerance=1e-5,
        picture=lambda _, __: 32,
    ),
    "omni-edit": Known(
        omni, {"image": [photo(96, 64, 0), photo(64, 64, 1)]}, prompts=1, calls=1, cond=0,
        left_out=("context_refiner", "siglip_refiner"), tolerance=1e-5, dropped=lambda _: -64,
        picture=lambda _, __: 160 + 64,
    ),
    "joyimage-plus": Known(
        joyimage_plus, {"images": [photo(96, 64, 0), photo(32, 64, 1)]}, prompts=1, calls=1,
        picture=lambda _, __: 0, text=lambda cells, _: 2 * cells + 8, tolerance=1e-5,
        references=((4, 6), (4, 2)),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx["multiple_images"],
        patches=((JOY, lambda height, width, _: (64, 96 if width > height else 32)),),
    ),
    "refiner": Known(
        refiner, {"image": photo(96, 64, 0)}, picture=lambda _, __: 0, text=lambda cells, _: cells,
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx, checkpointing=False,
        left_out=("context_embedder",), tolerance=1e-5,
    ),
    "qwen-layered": Known(
        layered, GUIDED | {"image": photo(96, 64, 0), "layers": 2, "output_type": "pt"}, prompts=1,
        grid=(3, 4, 6), references=((4, 6),),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx,
        patches=((f"{QWEN}layered.calculate_dimensions", lambda *_: (96, 64)),),
    ),
}  # fmt: skip
