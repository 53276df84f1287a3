"""Tiny pipelines of denoisers made for videos, with random weights, seeded: real diffusers and
transformers classes. What is known of each is written beside it, as in ``zoo_newer``."""

from types import SimpleNamespace

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKLAllegro,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLMagvit,
    AutoencoderKLMochi,
    ClassifierFreeGuidance,
    Cosmos2TextToImagePipeline,
    CosmosTransformer3DModel,
    DDPMScheduler,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    Kandinsky5T2VPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    VQModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from transformers import (
    ByT5Tokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from attncontrol.attention.sites import Where
from attncontrol.sprites.training.text import make_t5_tokenizer
from tests.kit.zoo import EXTRA, finish, sana, t5
from tests.kit.zoo_chat import SMALL, byte_tokenizer, wan
from tests.kit.zoo_newer import (
    ALL_QUERIES,
    VIDEO_OPTIONS,
    Known,
    flow,
    kandinsky5,
    qwen_vl,
    wan_vae,
)


def allegro():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4, num_layers=2,
        cross_attention_dim=48, sample_width=12, sample_height=8, sample_frames=2,
        caption_channels=32,
    )  # fmt: skip
    encoder = AutoencoderKLAllegro(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("AllegroDownBlock3D",) * 4, up_block_types=("AllegroUpBlock3D",) * 4,
    )  # fmt: skip
    scheduler = EulerAncestralDiscreteScheduler()
    return finish(AllegroPipeline(other, t5(other), encoder, transformer, scheduler), ALL_QUERIES)


class Safe:
    """Stands for the guard of Cosmos, a package of its own."""

    def to(self, *_):
        return self

    def check_text_safety(self, _):
        return True


def cosmos():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = CosmosTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=18, num_layers=2,
        mlp_ratio=1.0, text_embed_dim=32, adaln_lora_dim=4, max_size=(4, 32, 32),
        concat_padding_mask=False, extra_pos_embed_type=None,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    return finish(
        Cosmos2TextToImagePipeline(t5(other), other, transformer, wan_vae(), scheduler, Safe()),
        ALL_QUERIES,
    )


def kandinsky3():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    unet = Kandinsky3UNet(
        time_embedding_dim=16, groups=4, attention_head_dim=8, layers_per_block=2,
        block_out_channels=(16, 16, 16, 16), cross_attention_dim=16, encoder_hid_dim=32,
    )  # fmt: skip
    decoder = VQModel(latent_channels=4, block_out_channels=(8,), norm_num_groups=4)
    return finish(Kandinsky3Pipeline(other, t5(other), unet, DDPMScheduler(), decoder), ALL_QUERIES)


def sana_video():
    torch.manual_seed(0)
    parts = sana().components
    old = parts["text_encoder"]
    transformer = SanaVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24,
        caption_channels=old.config.hidden_size, mlp_ratio=1.0, sample_size=30,
        patch_size=(1, 2, 2),
    )  # fmt: skip
    pipe = SanaVideoPipeline(parts["tokenizer"], old, wan_vae(), transformer, parts["scheduler"])
    return finish(pipe, ALL_QUERIES)


def kandinsky5_video():
    parts = kandinsky5(visual_cond=True).components
    encoder = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=False,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )  # fmt: skip
    pipe = Kandinsky5T2VPipeline(**parts | {"vae": encoder})
    pipe.prompt_template_encode_start_idx = len(
        pipe.tokenizer(pipe.prompt_template.partition("{}")[0]).input_ids
    )
    return finish(pipe, ()).to(torch.float32)  # as for pictures


def hunyuanvideo15():
    torch.manual_seed(0)
    tokenizer, letters = byte_tokenizer(), ByT5Tokenizer()
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        num_refiner_layers=1, mlp_ratio=1.0, patch_size=1, text_embed_dim=16, text_embed_2_dim=32,
        image_embed_dim=8, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    encoder = AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1,
    )  # fmt: skip
    glyphs = T5EncoderModel(
        T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    language = qwen_vl(tokenizer, layers=4).model.language_model
    pipe = HunyuanVideo15Pipeline(
        language, tokenizer, transformer, encoder, flow(), glyphs, letters,
        ClassifierFreeGuidance(guidance_scale=2.0),
    )  # fmt: skip
    pipe.system_message = "Describe the video."
    pipe.vision_num_semantic_tokens, pipe.tokenizer_max_length = 3, 60
    pipe.tokenizer_2_max_length = 24
    head = [{"role": "system", "content": pipe.system_message}, {"role": "user", "content": "@"}]
    before = tokenizer.apply_chat_template(head, tokenize=False).partition("@")[0]
    pipe.prompt_template_encode_start_idx = len(tokenizer(before).input_ids)
    return finish(pipe, ALL_QUERIES)


def wan22_large(make=wan):
    """Two denoisers, of which the second begins below a timestep of 950: in the second step."""
    cls, parts, other = type(make()), make().components, make().components["transformer"]
    for parameter in other.parameters():
        parameter.mul_(1.1)
    pipe = cls(**parts | {"transformer_2": other}, boundary_ratio=0.95)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def mochi():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        pooled_projection_dim=16, in_channels=12, out_channels=12, text_embed_dim=32,
        time_embed_dim=4, max_sequence_length=16,
    )  # fmt: skip
    encoder = AutoencoderKLMochi(
        latent_channels=12, out_channels=3, encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32), layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipe = MochiPipeline(scheduler, encoder, t5(other), other, transformer)
    return finish(pipe, ALL_QUERIES).to(torch.float32)  # its rotations are


def skyreels():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = SkyReelsV2Transformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=32,
        freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    pipe = SkyReelsV2Pipeline(other, t5(other), transformer, wan_vae(), flow())
    return finish(pipe, ("attn2.to_q",))


def easyanimate():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2,
        num_layers=2, mmdit_layers=1, time_embed_dim=4, text_embed_dim=16,
    )  # fmt: skip
    encoder = AutoencoderKLMagvit(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3),
    )  # fmt: skip
    return finish(
        EasyAnimatePipeline(encoder, qwen_vl(tokenizer), tokenizer, transformer, flow()),
        ALL_QUERIES,
    )


def ltx2_connectors(layers, per_modality=False):
    """As in LTX-2, or in LTX-2.3 ``per_modality``."""
    of_each = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": layers,
               "num_learnable_registers": 8}  # fmt: skip
    both = {f"{of}_connector_{k}": v for of in ("video", "audio") for k, v in of_each.items()}
    return LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=SMALL["num_hidden_layers"] + 1,
        per_modality_projections=per_modality, video_hidden_dim=16, audio_hidden_dim=16, **both,
    )  # fmt: skip


def ltx2():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        cross_attention_dim=16, audio_in_channels=4, audio_out_channels=4, caption_channels=16,
        audio_num_attention_heads=2, audio_attention_head_dim=4, audio_cross_attention_dim=8,
        vae_scale_factors=(4, 16, 16), perturbed_attn=True,
    )  # fmt: skip
    encoder = AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        down_block_types=("LTX2VideoDownBlock3D",) * 2, layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1), spatio_temporal_scaling=(True, True),
        decoder_spatio_temporal_scaling=(True, True), decoder_inject_noise=(False,) * 3,
        downsample_type=("spatiotemporal",) * 2, upsample_type=("spatiotemporal",) * 2,
        upsample_residual=(False, False), upsample_factor=(1, 1),
    )  # fmt: skip
    sound = AutoencoderKLLTX2Audio(
        base_channels=4, latent_channels=2, ch_mult=(1,), num_res_blocks=1, mel_bins=8,
    )  # fmt: skip
    gemma = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=SMALL | {"vocab_size": len(other), "head_dim": 8, "pad_token_id": 0},
            vision_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
                           "num_attention_heads": 1, "image_size": 28, "patch_size": 14},
            mm_tokens_per_image=4,
        )
    )  # fmt: skip
    voice = LTX2Vocoder(
        in_channels=4, hidden_channels=8, upsample_kernel_sizes=[4], upsample_factors=[2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1]],
    )  # fmt: skip
    pipe = LTX2Pipeline(
        flow(), encoder, sound, gemma, other, ltx2_connectors(1), transformer, voice
    )
    return finish(pipe, ("attn2.to_q",))


CROSS = {"picture": lambda _, __: 0}
SKYREELS = "diffusers.pipelines.skyreels_v2.pipeline_skyreels_v2.ftfy"
SHORT = VIDEO_OPTIONS | {"max_sequence_length": 16}
ONE_CALL = {
    f"{of}{scale}": off
    for of in ("", "audio_")
    for scale, off in (("stg_scale", 0.0), ("modality_scale", 1.0), ("guidance_rescale", 0.0))
}
OF_SOUND = (
    "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn",
)  # fmt: skip
VIDEOS = {
    "allegro": Known(
        allegro, SHORT | {"clean_caption": False}, **CROSS, calls=1, grid=(2, 4, 6),
        tolerance=1e-5,
    ),
    "cosmos": Known(cosmos, {"max_sequence_length": 16}, **CROSS, tolerance=1e-4),
    "kandinsky3": Known(
        kandinsky3, {}, **CROSS, calls=1, left_out=("add_time_condition",), grid=(4, 8),
        where=Where(kind="cross", stride=2),
    ),
    "sana-video": Known(
        sana_video, EXTRA["sana"] | {"frames": 5}, **CROSS, calls=1, grid=(2, 4, 6), tolerance=1e-4,
        left_out=tuple(f"transformer_blocks.{k}.attn1" for k in (0, 1)),
    ),
    "kandinsky5-video": Known(
        kandinsky5_video, VIDEO_OPTIONS, **CROSS, left_out=("text_transformer_blocks",),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx, tolerance=1e-2, grid=(2, 4, 6),
    ),
    "hunyuanvideo15": Known(
        hunyuanvideo15, {"num_frames": 5}, **CROSS,
        text=lambda cells, _: cells, left_out=("context_embedder",), grid=(2, 4, 6),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx,
    ),
    "skyreels": Known(
        skyreels, SHORT, **CROSS, grid=(2, 4, 6), tolerance=1e-5,
        patches=((SKYREELS, SimpleNamespace(fix_text=str)),),
    ),
    "easyanimate": Known(
        easyanimate, {"num_frames": 5, "negative_prompt": ""}, calls=1, prompts=1, grid=(2, 4, 6),
        tolerance=1e-5,
    ),
    "ltx2": Known(
        ltx2, SHORT | ONE_CALL, **CROSS, calls=1, grid=(2, 4, 6), tolerance=1e-5, fronted=True,
        left_out=tuple(f"transformer_blocks.{k}.{of}" for k in (0, 1) for of in OF_SOUND),
    ),
}  # fmt: skip
