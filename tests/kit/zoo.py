"""Tiny pipelines of every family, with random weights, seeded: real diffusers and transformers
classes."""

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    T5Config,
    T5EncoderModel,
)

from attncontrol.sprites.training.text import make_t5_tokenizer, make_tokenizer
from tests.kit.tiny import tiny_sd

PEAKED = 8.0  # larger query weights make the attention peaked


def clip(tokenizer, cls=CLIPTextModelWithProjection, width=32):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=37, projection_dim=width,
        num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return cls(config)


def t5(tokenizer, width=32):
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4
        )
    )


def vae(channels=4, **config):
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), in_channels=3, out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels, norm_num_groups=4, layers_per_block=1, **config,
    )  # fmt: skip


def finish(pipe, peaked=("attn.to_q", "attn.add_q", "attn2.to_q")):
    pipe = pipe.to(torch.float64)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
            for name, parameter in part.named_parameters():
                if any(key in name for key in peaked) and name.endswith("weight"):
                    parameter.mul_(PEAKED)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd():
    return tiny_sd()


def sdxl():
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=16, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        cross_attention_dim=64, attention_head_dim=(2, 4), norm_num_groups=8,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    encoders = clip(tokenizer, CLIPTextModel), clip(tokenizer)
    return finish(
        StableDiffusionXLPipeline(vae(), *encoders, tokenizer, tokenizer, unet, scheduler)
    )


def sd3(**config):
    torch.manual_seed(0)
    tokenizer, other = make_tokenizer(), make_t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=32,
        pooled_projection_dim=64, out_channels=4, pos_embed_max_size=16, **config,
    )  # fmt: skip
    return finish(
        StableDiffusion3Pipeline(
            transformer, FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae(shift_factor=0.1, scaling_factor=1.5), clip(tokenizer), tokenizer, clip(tokenizer),
            tokenizer, t5(other, width=64), other,
        )
    )  # fmt: skip


def sd35():
    """qk-norm, and a second attention of the picture alone in the first blocks, whose processor is
    the same object."""
    return sd3(qk_norm="rms_norm", dual_attention_layers=(0, 1))


def flux(guidance_embeds=False):
    torch.manual_seed(0)
    tokenizer, other = make_tokenizer(), make_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        guidance_embeds=guidance_embeds, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return finish(
        FluxPipeline(
            FlowMatchEulerDiscreteScheduler(), vae(shift_factor=0.1, scaling_factor=1.5),
            clip(tokenizer, CLIPTextModel), tokenizer, t5(other), other, transformer,
        )
    )  # fmt: skip


def pixart():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = PixArtTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        caption_channels=32, in_channels=4, cross_attention_dim=24, out_channels=8,
        attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        use_additional_conditions=False,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler()
    return finish(PixArtAlphaPipeline(other, t5(other), vae(), transformer, scheduler))


def chroma():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8, approximator_hidden_dim=32, approximator_layers=1,
    )  # fmt: skip
    return finish(
        ChromaPipeline(
            FlowMatchEulerDiscreteScheduler(), vae(shift_factor=0.1), t5(other), other, transformer
        )
    )


def auraflow():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = AuraFlowTransformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32,
        caption_projection_dim=32, pos_embed_max_size=64,
    )  # fmt: skip
    return finish(
        AuraFlowPipeline(
            other, t5(other), vae(), transformer, FlowMatchEulerDiscreteScheduler(shift=1.73)
        )
    )


def hunyuandit():
    torch.manual_seed(0)
    first, other = make_tokenizer(), make_t5_tokenizer()
    transformer = HunyuanDiT2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        in_channels=4, cross_attention_dim=32, cross_attention_dim_t5=32, pooled_projection_dim=16,
        hidden_size=24, activation_fn="gelu-approximate", text_len=77, text_len_t5=256,
    )  # fmt: skip
    bert = BertModel(
        BertConfig(
            vocab_size=len(first), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=37, pad_token_id=first.pad_token_id,
        )
    )  # fmt: skip
    parts = (vae(), bert, first, transformer, DDIMScheduler(), None, None)
    return finish(
        HunyuanDiTPipeline(
            *parts, requires_safety_checker=False, text_encoder_2=t5(other), tokenizer_2=other
        )
    )


def sana():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2,
        attention_head_dim=4, num_cross_attention_heads=2, cross_attention_head_dim=4,
        cross_attention_dim=8, caption_channels=8, sample_size=32,
    )  # fmt: skip
    deep = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1), downsample_block_type="conv",
        upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu",
        scaling_factor=0.4,
    )  # fmt: skip
    gemma = Gemma2Model(
        Gemma2Config(
            head_dim=16, hidden_size=8, intermediate_size=8, max_position_embeddings=512,
            num_attention_heads=2, num_hidden_layers=1, num_key_value_heads=2,
            vocab_size=len(other), pad_token_id=0,
        )
    )  # fmt: skip
    return finish(
        SanaPipeline(other, gemma, deep, transformer, FlowMatchEulerDiscreteScheduler(shift=7.0))
    )


ZOO = {"sd": sd, "sdxl": sdxl, "sd3": sd3, "sd35": sd35, "flux": flux, "pixart": pixart}
MORE = {"chroma": chroma, "auraflow": auraflow, "hunyuandit": hunyuandit, "sana": sana}
EXTRA = {  # what a call needs beyond the prompt
    "sd3": {"max_sequence_length": 16},
    "sd35": {"max_sequence_length": 16},
    "flux": {"max_sequence_length": 16},
    "chroma": {"max_sequence_length": 16, "guidance_scale": 1.0},
    "auraflow": {"max_sequence_length": 16},
    "hunyuandit": {"use_resolution_binning": False},
    "sana": {
        "max_sequence_length": 16,
        "use_resolution_binning": False,
        "clean_caption": False,
        "complex_human_instruction": None,
    },
    "pixart": {"max_sequence_length": 16, "use_resolution_binning": False, "clean_caption": False},
}
