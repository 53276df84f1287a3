"""Tiny pipelines whose text encoders are language models, and video pipelines: random weights,
seeded, real classes."""

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLFlux2,
    AutoencoderKLLTXVideo,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from attncontrol.sprites.training.text import make_t5_tokenizer, make_tokenizer
from tests.kit.zoo import clip, finish, t5, vae

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{{ message.content[0].text }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


MARKS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]
"""Around the places of a picture, of Qwen."""


def picture_tokenizer():
    """Knows the marks of pictures."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(MARKS, special_tokens=True)
    return tokenizer


def byte_tokenizer(**options):
    """Byte-level BPE as of Qwen, Llama 3 and Mistral: letters, and a few merges."""
    letters = [*map(chr, range(33, 127)), "\u0120", "\u010a"]
    merges = [
        ("t", "u"),
        ("tu", "r"),
        ("\u0120", "tur"),
        ("l", "e"),
        ("t", "le"),
        ("\u0120", "c"),
        ("a", "t"),
        ("\u0120c", "at"),
    ]
    merges += [("o", "g"), ("d", "og"), ("\u0120", "dog"), ("\u0120", "a")]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {
        token: i
        for i, token in enumerate(dict.fromkeys([*special, *letters, *map("".join, merges)]))
    }
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        additional_special_tokens=special[1:],
        model_max_length=512,
        **options,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


SMALL = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def qwenimage():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    encoder = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    text = SMALL | {"vocab_size": len(tokenizer), "rope_parameters": rope}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
    }
    language = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    )
    pipe = QwenImagePipeline(
        FlowMatchEulerDiscreteScheduler(), encoder, language, tokenizer, transformer
    )
    before = pipe.prompt_template_encode.partition("{}")[0]
    pipe.prompt_template_encode_start_idx = len(
        tokenizer(before).input_ids
    )  # 34 with Qwen's own vocabulary
    return finish(pipe, ("attn.to_q", "attn.add_q"))


def lumina2():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    other.model_max_length = 512
    transformer = Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=16, num_layers=2,
        num_refiner_layers=1, num_attention_heads=2, num_kv_heads=1, multiple_of=16,
        axes_dim_rope=(4, 2, 2), axes_lens=(300, 64, 64), cap_feat_dim=8,
    )  # fmt: skip
    pipe = Lumina2Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(), vae(shift_factor=0.1), gemma(other), other
    )
    return finish(pipe, ("attn.to_q",))


def gemma(tokenizer):
    config = SMALL | {
        "hidden_size": 8,
        "intermediate_size": 8,
        "head_dim": 8,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }
    return Gemma2Model(Gemma2Config(**config, vocab_size=len(tokenizer), pad_token_id=0))


def zimage():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        cap_feat_dim=16, axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    language = Qwen3Model(Qwen3Config(**SMALL, head_dim=8, vocab_size=len(tokenizer)))
    parts = (
        FlowMatchEulerDiscreteScheduler(),
        vae(shift_factor=0.1),
        language,
        tokenizer,
        transformer,
    )
    return finish(ZImagePipeline(*parts), ("attention.to_q",))


def hidream():
    torch.manual_seed(0)
    first, other, fourth = make_tokenizer(), make_t5_tokenizer(), byte_tokenizer()
    transformer = HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1,
        attention_head_dim=8, num_attention_heads=4, caption_channels=[32, 16], text_emb_dim=64,
        num_routed_experts=4, num_activated_experts=2, axes_dims_rope=(4, 2, 2),
        max_resolution=(16, 16), llama_layers=(0, 1),
    )  # fmt: skip
    llama = LlamaForCausalLM(LlamaConfig(**SMALL, vocab_size=len(fourth)))
    encoders = (clip(first), first, clip(first), first, t5(other), other, llama, fourth)
    pipe = HiDreamImagePipeline(
        FlowMatchEulerDiscreteScheduler(), vae(shift_factor=0.1), *encoders, transformer
    )
    pipe.default_sample_size = (
        9.8  # the pipeline scales every picture to this area, here that of 64 x 96 pixels
    )
    return finish(pipe, ("to_q",))


def flux2_parts():
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    encoder = AutoencoderKLFlux2(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=1,
        norm_num_groups=1,
    )  # fmt: skip
    return FlowMatchEulerDiscreteScheduler(), encoder, transformer


def klein():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    scheduler, encoder, transformer = flux2_parts()
    language = Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8, vocab_size=len(tokenizer)))
    return finish(
        Flux2KleinPipeline(scheduler, encoder, language, tokenizer, transformer),
        ("attn.to_q", "attn.add_q"),
    )


def flux2():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(padding_side="left")
    scheduler, encoder, transformer = flux2_parts()
    text = SMALL | {"vocab_size": len(tokenizer), "head_dim": 8, "model_type": "mistral"}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "model_type": "pixtral",
    }
    language = Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision)
    )
    return finish(
        Flux2Pipeline(scheduler, encoder, language, tokenizer, transformer),
        ("attn.to_q", "attn.add_q"),
    )


def wan():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=32, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    encoder = AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return finish(
        WanPipeline(
            other, t5(other), encoder, FlowMatchEulerDiscreteScheduler(shift=7.0), transformer
        ),
        ("attn2.to_q",),
    )


def cogvideox():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        time_embed_dim=2, text_embed_dim=32, num_layers=2, sample_width=12, sample_height=8,
        sample_frames=9, max_text_seq_length=16, use_rotary_positional_embeddings=True,
    )  # fmt: skip
    encoder = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip
    return finish(
        CogVideoXPipeline(other, t5(other), encoder, transformer, CogVideoXDDIMScheduler()),
        ("attn1.to_q",),
    )


def ltx():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=2, caption_channels=32,
    )  # fmt: skip
    encoder = AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False), encoder_causal=True,
        decoder_causal=False,
    )  # fmt: skip
    return finish(
        LTXPipeline(FlowMatchEulerDiscreteScheduler(), encoder, t5(other), other, transformer),
        ("attn2.to_q",),
    )


class OtherDiT2DModel(LuminaNextDiT2DModel):
    """No family knows it."""


def lumina_next(cls=OtherDiT2DModel):
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = cls(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=2,
        num_attention_heads=3, num_kv_heads=1, multiple_of=16, cross_attention_dim=8,
    )  # fmt: skip
    return finish(
        LuminaPipeline(transformer, FlowMatchEulerDiscreteScheduler(), vae(), gemma(other), other),
        ("attn2.to_q",),
    )


EXTRA_CHAT = {  # what a call needs beyond the prompt
    "qwenimage": {"negative_prompt": "", "true_cfg_scale": 2.0, "max_sequence_length": 64},
    "lumina2": {"max_sequence_length": 32, "system_prompt": "Paint."},
    "zimage": {"max_sequence_length": 128, "guidance_scale": 2.0},
    "hidream": {"max_sequence_length": 32, "guidance_scale": 2.0},
    "klein": {"max_sequence_length": 96, "text_encoder_out_layers": (1,), "guidance_scale": 2.0},
    "flux2": {"max_sequence_length": 480, "text_encoder_out_layers": (1,)},
    "wan": {"max_sequence_length": 16, "num_frames": 5},
    "cogvideox": {"max_sequence_length": 16, "num_frames": 9},
    "ltx": {"max_sequence_length": 16, "num_frames": 9},
}
CHAT = {
    "qwenimage": qwenimage,
    "lumina2": lumina2,
    "zimage": zimage,
    "hidream": hidream,
    "klein": klein,
    "flux2": flux2,
}
VIDEO = {"wan": wan, "cogvideox": cogvideox, "ltx": ltx}
