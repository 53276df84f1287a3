"""Tiny pipelines of denoisers made for videos, with random weights, seeded: real diffusers and
transformers classes. What is known of each is written beside it, as in ``zoo_newer``."""

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKLAllegro,
    Cosmos2TextToImagePipeline,
    CosmosTransformer3DModel,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from attncontrol.sprites.training.text import make_t5_tokenizer
from tests.kit.zoo import finish, t5
from tests.kit.zoo_newer import ALL_QUERIES, VIDEO_OPTIONS, Known, wan_vae


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


CROSS = {"picture": lambda _, __: 0}
SHORT = VIDEO_OPTIONS | {"max_sequence_length": 16}
VIDEOS = {
    "allegro": Known(
        allegro, SHORT | {"clean_caption": False}, **CROSS, calls=1, grid=(2, 4, 6),
        tolerance=1e-5,
    ),
    "cosmos": Known(cosmos, {"max_sequence_length": 16}, **CROSS, tolerance=1e-4),
}  # fmt: skip
