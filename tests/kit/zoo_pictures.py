"""Tiny pipelines that make a video from a picture, with random weights, seeded: those that make one
from text (``zoo_videos``), with what real diffusers and transformers classes have more."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from diffusers import (
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    AutoencoderKLCosmos,
    ChronoEditPipeline,
    ChronoEditTransformer3DModel,
    ClassifierFreeGuidance,
    CogVideoXImageToVideoPipeline,
    Cosmos2_5_PredictBasePipeline,
    Cosmos2VideoToWorldPipeline,
    CosmosTextToWorldPipeline,
    CosmosVideoToWorldPipeline,
    EasyAnimateInpaintPipeline,
    EDMEulerScheduler,
    FlowMapEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideoImageToVideoPipeline,
    Kandinsky5I2VPipeline,
    LTX2ConditionPipeline,
    LTX2ImageToVideoPipeline,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    MotifVideoImage2VideoPipeline,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
    SkyReelsV2ImageToVideoPipeline,
    WanImageToVideoPipeline,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Gemma2Encoder,
    T5Gemma2EncoderConfig,
    T5Gemma2TextConfig,
)

from attncontrol.attention.sites import Where
from attncontrol.sprites.training.text import make_t5_tokenizer
from tests.kit.zoo import finish
from tests.kit.zoo_chat import EXTRA_CHAT, SMALL, byte_tokenizer, cogvideox, ltx, wan
from tests.kit.zoo_newer import (
    ALL_QUERIES,
    GUIDED,
    NEWER,
    PIPELINES,
    VIDEO_OPTIONS,
    Known,
    flow,
    hunyuanvideo,
    photo,
    qwen_vl,
    wan_vae,
)
from tests.kit.zoo_videos import (
    CROSS,
    SHORT,
    VIDEOS,
    cosmos,
    easyanimate,
    hunyuanvideo15,
    kandinsky5_video,
    ltx2,
    skyreels,
)

PICTURE = {"image": photo(96, 64, 0)}


def cleaned(module):
    """Stands for ftfy, which mends broken letters and is not installed."""
    return ((f"diffusers.pipelines.{module}.ftfy", SimpleNamespace(fix_text=str)),)


def from_picture(cls, make, peaked, config, **more):
    """Of the parts of another pipeline, whose transformer is one of another ``config``, if any."""
    parts = make().components
    if not config:
        return finish(cls(**parts | more), ())
    torch.manual_seed(0)
    old = parts["transformer"]
    own = {name: value for name, value in old.config.items() if not name.startswith("_")}
    transformer = type(old)(**own | config)
    return finish(cls(**parts | {"transformer": transformer} | more), peaked)


def clip_vision():
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14,
        )
    )  # fmt: skip


def features():
    """The encoder of a picture, and what cuts it to its size."""
    side = {"height": 28, "width": 28}
    return {
        "image_encoder": clip_vision(),
        "image_processor": CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=side),
    }


def wan21_picture():
    """Channels of a mask and of the picture, and CLIP's features of it, 5 before the text."""
    config = {"in_channels": 4 + 4 + 4, "image_dim": 16, "added_kv_proj_dim": 24}
    return from_picture(WanImageToVideoPipeline, wan, ("attn2.to_q",), config, **features())


def wan22_picture():
    """The small model of Wan 2.2: the picture is the first frame, whose timestep is 0."""
    return from_picture(WanImageToVideoPipeline, wan, ("attn2.to_q",), {}, expand_timesteps=True)


def cogvideox_picture():
    config = {"in_channels": 8, "ofs_embed_dim": 2}
    return from_picture(CogVideoXImageToVideoPipeline, cogvideox, ("attn1.to_q",), config)


def ltx_picture():
    return from_picture(LTXImageToVideoPipeline, ltx, ("attn2.to_q",), {})


def ltx2_picture():
    return from_picture(LTX2ImageToVideoPipeline, ltx2, (), {})


def ltx2_pictures():
    return from_picture(LTX2ConditionPipeline, ltx2, (), {})


def ltx_pictures():
    return from_picture(LTXConditionPipeline, ltx, ("attn2.to_q",), {})


def cosmos25():
    """Two layers of Qwen2.5-VL side by side."""
    tokenizer = byte_tokenizer()
    config = {"in_channels": 5, "text_embed_dim": 2 * 16}
    return from_picture(
        Cosmos2_5_PredictBasePipeline, cosmos, ALL_QUERIES, config, tokenizer=tokenizer,
        text_encoder=qwen_vl(tokenizer), scheduler=flow(),
    )  # fmt: skip


def later_frames():
    """The first frame, and one that lies behind the video."""
    return [
        LTX2VideoCondition(photo(96, 64, 0), index=0, crf=0),
        LTX2VideoCondition(photo(96, 64, 1), index=1, strength=0.5, crf=0),
    ]


def cosmos_world(cls=CosmosTextToWorldPipeline, **config):
    """Its scheduler is asked twice in a step."""
    encoder = AutoencoderKLCosmos(
        latent_channels=4, encoder_block_out_channels=(8, 8, 8, 8), num_layers=1,
        decode_block_out_channels=(8, 8, 8, 8), attention_resolutions=(1,), resolution=64,
        temporal_compression_ratio=4,
    )  # fmt: skip
    parts = {"scheduler": EDMEulerScheduler(), "vae": encoder}
    return from_picture(cls, cosmos, ALL_QUERIES, config, **parts)


def cosmos_picture():
    """A further channel says which frames are given."""
    return cosmos_world(CosmosVideoToWorldPipeline, in_channels=5)


def cosmos2_picture():
    return from_picture(Cosmos2VideoToWorldPipeline, cosmos, ALL_QUERIES, {"in_channels": 5})


def siglip():
    return SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip


def siglip_processor():
    return SiglipImageProcessorPil(size={"height": 28, "width": 28})


def motif(cls=MotifVideoPipeline, **more):
    """The last of three blocks is its decoder."""
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = MotifVideoTransformer3DModel(
        in_channels=4 + 4 + 1, out_channels=4, num_attention_heads=2, attention_head_dim=16,
        num_layers=1, num_single_layers=2, num_decoder_layers=1, mlp_ratio=1.0, text_embed_dim=16,
        image_embed_dim=8, rope_axes_dim=(4, 6, 6), enable_text_cross_attention_dual=True,
        enable_text_cross_attention_single=True,
    )  # fmt: skip
    text = T5Gemma2TextConfig(
        **SMALL,
        head_dim=8,
        vocab_size=len(other),
        pad_token_id=other.pad_token_id,
        dropout_rate=0.0,
    )
    config = T5Gemma2EncoderConfig(text_config=text, vision_config=siglip(), mm_tokens_per_image=4)
    pipe = cls(
        flow(), wan_vae(), T5Gemma2Encoder(config, eoi_token_index=1), other, transformer,
        ClassifierFreeGuidance(guidance_scale=2.0), **more,
    )  # fmt: skip
    return finish(pipe, ALL_QUERIES).to(torch.float32)  # as its embedding of time is


def motif_picture():
    """SigLIP's features of the picture, 4 before the text."""
    return motif(MotifVideoImage2VideoPipeline, feature_extractor=siglip_processor())


def skyreels_picture():
    config = {"in_channels": 4 + 4 + 4, "image_dim": 16, "added_kv_proj_dim": 24}
    return from_picture(
        SkyReelsV2ImageToVideoPipeline, skyreels, ("attn2.to_q",), config, **features()
    )


SIGLIP = f"{PIPELINES}.hunyuan_video1_5.image_processor.HunyuanVideo15ImageProcessor"


def hunyuanvideo15_picture():
    """SigLIP's features of the picture, 4 before the text."""
    text = hunyuanvideo15()
    pipe = from_picture(
        HunyuanVideo15ImageToVideoPipeline, lambda: text, ALL_QUERIES, {},
        image_encoder=SiglipVisionModel(siglip()), feature_extractor=siglip_processor(),
    )  # fmt: skip
    for name in ("system_message", "tokenizer_max_length", "tokenizer_2_max_length",
                 "prompt_template_encode_start_idx"):  # fmt: skip
        setattr(pipe, name, getattr(text, name))
    return pipe


def hunyuan_skyreels():
    return from_picture(
        HunyuanSkyreelsImageToVideoPipeline, hunyuanvideo, ALL_QUERIES, {"in_channels": 8}
    )


LLAVA_TEMPLATE = {
    "template": "<|start_header_id|>a<|end_header_id|><image>Describe:<|start_header_id|>b"
    "<|end_header_id|>{}<|im_end|><|start_header_id|>c<|end_header_id|>\n",
    "image_emb_start": 3, "image_emb_end": 7, "image_emb_len": 4,
}  # fmt: skip
HEADERS = ["<|start_header_id|>", "<|end_header_id|>", "<image>"]


def hunyuanvideo_picture(**config):
    """LLaVA reads a picture of 4 positions in the template."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": HEADERS})
    torch.manual_seed(0)
    llava = LlavaConfig(
        text_config=LlamaConfig(**SMALL | {"num_hidden_layers": 4}, vocab_size=len(tokenizer)),
        vision_config=clip_vision().config, pad_token_id=tokenizer.pad_token_id,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=4,
    )  # fmt: skip
    before = LLAVA_TEMPLATE["template"].partition("{}")[0]
    LLAVA_TEMPLATE["crop_start"] = len(tokenizer(before).input_ids)
    return from_picture(
        HunyuanVideoImageToVideoPipeline, hunyuanvideo, ALL_QUERIES, config, tokenizer=tokenizer,
        text_encoder=LlavaForConditionalGeneration(llava),
        image_processor=features()["image_processor"],
    )  # fmt: skip


def hunyuanvideo_frame():
    """The picture is the first frame, which the scheduler is not given."""
    return hunyuanvideo_picture(image_condition_type="token_replace")


def hunyuanvideo_channels():
    return hunyuanvideo_picture(image_condition_type="latent_concat", in_channels=4 + 4 + 1)


def before_prompt(pictures):
    """The positions that are dropped before it, but for those ``pictures`` that are kept."""
    return lambda _: LLAVA_TEMPLATE["crop_start"] - 1 + 4 - pictures


def kandinsky5_picture():
    text = kandinsky5_video()
    pipe = from_picture(Kandinsky5I2VPipeline, lambda: text, (), {}).to(torch.float32)
    pipe.prompt_template_encode_start_idx = text.prompt_template_encode_start_idx
    return pipe


def easyanimate_inpaint():
    """Channels of a mask and of the frames that are given."""
    config = {"in_channels": 4 + 4 + 4, "resize_inpaint_mask_directly": False}
    return from_picture(EasyAnimateInpaintPipeline, easyanimate, ALL_QUERIES, config)


def first_given():
    """A video, and a mask of all but its first frame."""
    mask = torch.ones(1, 1, 5, 64, 96)
    mask[:, :, 0] = 0
    video = torch.rand(1, 3, 5, 64, 96, generator=torch.Generator().manual_seed(7))
    return {"video": video, "mask_video": mask}


def given_frames():
    """The first, and another one softly, which lies before the video."""
    return [
        LTXVideoCondition(image=photo(96, 64, 0), frame_index=0),
        LTXVideoCondition(image=photo(96, 64, 1), frame_index=8, strength=0.5),
    ]


def chronoedit():
    torch.manual_seed(0)
    transformer = ChronoEditTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4 + 4 + 4,
        out_channels=4, text_dim=32, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        image_dim=16, added_kv_proj_dim=24,
    )  # fmt: skip
    parts = wan21_picture().components
    parts = {name: parts[name] for name in parts if name != "transformer_2"}
    pipe = ChronoEditPipeline(**parts | {"transformer": transformer})
    return finish(pipe, ("attn2.to_q",))


def anyflow():
    torch.manual_seed(0)
    transformer = AnyFlowTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=32, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    parts = {name: part for name, part in wan().components.items() if name != "transformer_2"}
    parts |= {"transformer": transformer, "scheduler": FlowMapEulerDiscreteScheduler()}
    return finish(AnyFlowPipeline(**parts), ("attn2.to_q",))


def wan_vace():
    """Two control blocks beside two blocks, of latents of both parts and 64 masks of a cell."""
    parts = wan().components
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=32, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
        vace_layers=[0, 1], vace_in_channels=4 + 4 + 64,
    )  # fmt: skip
    pipe = WanVACEPipeline(**parts | {"transformer": transformer})
    return finish(pipe, ("attn2.to_q",))


def wan22_large_picture():
    """Channels of a mask and of the picture, and no features of it."""
    config = {"in_channels": 4 + 4 + 4}
    return from_picture(WanImageToVideoPipeline, wan, ("attn2.to_q",), config)


PICTURES = {
    "wan21-picture": Known(
        wan21_picture, PICTURE | SHORT | {"max_sequence_length": 512}, **CROSS, grid=(2, 4, 6),
        before=1, patches=cleaned("wan.pipeline_wan_i2v"),
    ),
    "wan22-picture": Known(
        wan22_picture, PICTURE | SHORT, **CROSS, grid=(2, 4, 6), tolerance=1e-5,
        patches=cleaned("wan.pipeline_wan_i2v"),
    ),
    "chronoedit": Known(
        chronoedit, PICTURE | SHORT | {"max_sequence_length": 512}, **CROSS, grid=(2, 4, 6),
        before=1, prompts=1, patches=cleaned("chronoedit.pipeline_chronoedit"),
    ),
    "motif": Known(
        motif, SHORT, **CROSS, grid=(2, 4, 6), where=Where(kind="cross"), tolerance=1e-5,
        left_out=("single_transformer_blocks.1.attn",),
    ),
    "motif-picture": Known(
        motif_picture, SHORT | PICTURE, picture=lambda _, __: 0, text=lambda cells, _: cells + 4,
        grid=(2, 4, 6), where=Where(kind="joint"), prompts=1, tolerance=1e-5,
        left_out=("single_transformer_blocks.1.attn",),
    ),
    "anyflow": Known(anyflow, SHORT, **CROSS, calls=1, grid=(2, 4, 6), tolerance=1e-5),
    "anyflow-picture": Known(
        anyflow, SHORT | {"video": [photo(96, 64, 0)]}, **CROSS, calls=1, grid=(2, 4, 6), prompts=1,
        tolerance=1e-5,
    ),
    "wan-vace": Known(
        wan_vace,
        SHORT | {"reference_images": [[photo(96, 64, 0)]], "video": [photo(96, 64, 1)] * 5},
        picture=lambda cells, _: cells // 2, grid=(2, 4, 6), prompts=1, tolerance=1e-5,
        patches=cleaned("wan.pipeline_wan_vace"),
    ),
    "cogvideox-picture": Known(
        cogvideox_picture, EXTRA_CHAT["cogvideox"] | PICTURE, calls=1, prompts=1,
        grid=(3, 4, 6), tolerance=1e-5,
    ),
    "ltx-picture": Known(
        ltx_picture, EXTRA_CHAT["ltx"] | PICTURE, **CROSS, calls=1, prompts=1,
        grid=(3, 4, 6), tolerance=1e-5,
    ),
    "ltx2-picture": replace(
        VIDEOS["ltx2"], make=ltx2_picture, prompts=1,
        options=VIDEOS["ltx2"].options | PICTURE | {"image_crf": 0},
    ),
    "ltx2-pictures": replace(
        VIDEOS["ltx2"], make=ltx2_pictures, prompts=1,
        options=VIDEOS["ltx2"].options | {"conditions": later_frames()},
    ),
    "ltx-pictures": Known(
        ltx_pictures, EXTRA_CHAT["ltx"] | {"conditions": given_frames()}, calls=1, prompts=1,
        picture=lambda cells, _: cells // 3, grid=(3, 4, 6), tolerance=1e-5,
    ),
    "cosmos-picture": Known(
        cosmos_picture, SHORT | PICTURE, **CROSS, grid=(2, 4, 6), prompts=1, tolerance=1e-4
    ),
    "cosmos2-picture": Known(
        cosmos2_picture, SHORT | PICTURE, **CROSS, grid=(2, 4, 6), prompts=1, tolerance=1e-4
    ),
    "cosmos25": Known(
        cosmos25, {"num_frames": 5, "max_sequence_length": 160}, **CROSS, grid=(2, 4, 6),
        tolerance=1e-4,
    ),
    "cosmos25-picture": Known(
        cosmos25,
        {"num_frames": 5, "max_sequence_length": 160, "video": [photo(96, 64, 0)],
         "num_latent_conditional_frames": 1},
        **CROSS, grid=(2, 4, 6), prompts=1, tolerance=1e-4,
    ),
    "cosmos-world": Known(cosmos_world, SHORT, **CROSS, grid=(2, 4, 6), tolerance=1e-4),
    "skyreels-picture": Known(
        skyreels_picture, PICTURE | SHORT | {"max_sequence_length": 512}, **CROSS, grid=(2, 4, 6),
        before=1, prompts=1, tolerance=1e-5,
        patches=cleaned("skyreels_v2.pipeline_skyreels_v2_i2v"),
    ),
    "hunyuanvideo15-picture": replace(
        VIDEOS["hunyuanvideo15"], make=hunyuanvideo15_picture, options={"num_frames": 5} | PICTURE,
        text=lambda cells, _: cells + 4,
        patches=((f"{SIGLIP}.calculate_default_height_width", lambda *_, **__: (64, 96)),),
    ),
    "hunyuanvideo-frame": replace(
        NEWER["hunyuanvideo"], make=hunyuanvideo_frame, prompts=1, dropped=before_prompt(1),
        options=VIDEO_OPTIONS | GUIDED | PICTURE | {"prompt_template": LLAVA_TEMPLATE},
    ),
    "hunyuanvideo-channels": replace(
        NEWER["hunyuanvideo"], make=hunyuanvideo_channels, prompts=1, dropped=before_prompt(2),
        options=VIDEO_OPTIONS | GUIDED | PICTURE | {"prompt_template": LLAVA_TEMPLATE},
    ),
    "hunyuan-skyreels": replace(
        NEWER["hunyuanvideo"], make=hunyuan_skyreels, prompts=1,
        options=NEWER["hunyuanvideo"].options | PICTURE,
    ),
    "kandinsky5-picture": replace(
        VIDEOS["kandinsky5-video"], make=kandinsky5_picture, grid=(5, 4, 6),
        options=VIDEO_OPTIONS | PICTURE | {"num_frames": 17},  # its last frames give it a measure
    ),
    "easyanimate-inpaint": replace(
        VIDEOS["easyanimate"], make=easyanimate_inpaint,
        options=VIDEOS["easyanimate"].options | first_given(),
    ),
}  # fmt: skip
