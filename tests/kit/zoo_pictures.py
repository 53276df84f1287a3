"""Tiny pipelines that make a video from a picture, with random weights, seeded: those that make one
from text (``zoo_videos``), with what real diffusers and transformers classes have more."""

from types import SimpleNamespace

import torch
from diffusers import (
    AutoencoderKLCosmos,
    CogVideoXImageToVideoPipeline,
    CosmosTextToWorldPipeline,
    EDMEulerScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    WanImageToVideoPipeline,
)
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from tests.kit.zoo import finish
from tests.kit.zoo_chat import EXTRA_CHAT, cogvideox, ltx, wan
from tests.kit.zoo_newer import ALL_QUERIES, Known, photo
from tests.kit.zoo_videos import CROSS, SHORT, cosmos

PICTURE = {"image": photo(96, 64, 0)}


def cleaned(module):
    """Stands for ftfy, which mends broken letters and is not installed."""
    return ((f"diffusers.pipelines.{module}.ftfy", SimpleNamespace(fix_text=str)),)


def from_picture(cls, make, peaked, config, **more):
    """Of the parts of another pipeline, whose transformer is one of another ``config``."""
    parts = make().components
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


def ltx_pictures():
    return from_picture(LTXConditionPipeline, ltx, ("attn2.to_q",), {})


def cosmos_world():
    """Its text is T5's, and its scheduler is asked twice in a step."""
    encoder = AutoencoderKLCosmos(
        latent_channels=4, encoder_block_out_channels=(8, 8, 8, 8), num_layers=1,
        decode_block_out_channels=(8, 8, 8, 8), attention_resolutions=(1,), resolution=64,
        temporal_compression_ratio=4,
    )  # fmt: skip
    parts = {"scheduler": EDMEulerScheduler(), "vae": encoder}
    return from_picture(CosmosTextToWorldPipeline, cosmos, ALL_QUERIES, {}, **parts)


def given_frames():
    """The first, and another one softly, which lies before the video."""
    return [
        LTXVideoCondition(image=photo(96, 64, 0), frame_index=0),
        LTXVideoCondition(image=photo(96, 64, 1), frame_index=8, strength=0.5),
    ]


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
    "cogvideox-picture": Known(
        cogvideox_picture, EXTRA_CHAT["cogvideox"] | PICTURE, calls=1, prompts=1,
        grid=(3, 4, 6), tolerance=1e-5,
    ),
    "ltx-picture": Known(
        ltx_picture, EXTRA_CHAT["ltx"] | PICTURE, **CROSS, calls=1, prompts=1,
        grid=(3, 4, 6), tolerance=1e-5,
    ),
    "ltx-pictures": Known(
        ltx_pictures, EXTRA_CHAT["ltx"] | {"conditions": given_frames()}, calls=1, prompts=1,
        picture=lambda cells, _: cells // 3, grid=(3, 4, 6), tolerance=1e-5,
    ),
    "cosmos-world": Known(cosmos_world, SHORT, **CROSS, grid=(2, 4, 6), tolerance=1e-4),
}  # fmt: skip
