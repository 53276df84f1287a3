"""Tiny pipelines of newer families, with random weights, seeded: real diffusers and transformers
classes. What is known of each from the code of its pipeline and model is written beside it."""

import importlib
import inspect
import io
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    AutoencoderKLWan,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
    BriaPipeline,
    BriaTransformer2DModel,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DDIMScheduler,
    DDPMScheduler,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    IFPipeline,
    JoyImageEditPipeline,
    JoyImageEditTransformer3DModel,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    KandinskyPipeline,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    LuminaNextDiT2DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    PRXPipeline,
    PRXTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    UNet2DConditionModel,
    VQModel,
    WanPipeline,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from diffusers.utils import is_torchvision_available
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import (
    BatchEncoding,
    ByT5Tokenizer,
    CLIPTextModel,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    T5Config,
    T5EncoderModel,
)

from attncontrol.attention.sites import TEXT, Where
from attncontrol.sprites.training.text import make_t5_tokenizer, make_tokenizer
from tests.kit.zoo import EXTRA, clip, finish, flux, sana, t5, vae
from tests.kit.zoo_chat import (
    EXTRA_CHAT,
    MARKS,
    SMALL,
    byte_tokenizer,
    flux2,
    klein,
    lumina_next,
    picture_tokenizer,
    qwenimage,
    wan,
)

BEGIN = ("<|endoftext|>", "<|im_start|>")  # two tokens before every text, as GLM-4 has
ALL_QUERIES = ("to_q", "to_query", "add_q_proj", "img_qkv_proj")


@dataclass(frozen=True)
class Known:
    """Of one tiny pipeline. ``dropped`` are the positions of what the text encoder reads that the
    denoiser does not, before the prompt; ``text`` and ``picture`` say where they begin among keys
    and among queries, from the number of cells and the length of the text. ``calls`` are two where
    guidance takes two calls, ``cond`` the half of a call that is conditional, None all of it, and
    ``left_out`` the modules with a processor that are no sites. ``options`` are those of a call,
    ``prompts`` how many a guided call may have, ``references`` the grids of the pictures in
    ``options``. ``tolerance`` is wider where the model computes in float32. ``patches`` make
    pipelines small, or run here: (name, value). ``where`` are the sites that are looked at,
    all of one stride. ``checkpointing`` is False where diffusers fails
    under it. ``fronted`` says that padding on the left is taken from before the text, ``apart``
    how often the text attends to itself before the picture's turn in the first step, ``before`` how
    many attention calls to other keys come first in every step.
    ``of_a_picture`` are the keys of a position at which the text encoder reads a picture, ``line``
    the pictures whose cells lie side by side in a line, its own first."""

    make: Callable[[], Any]
    options: dict[str, Any]
    dropped: Callable[[Any], int] = lambda _: 0
    picture: Callable[[int, int], int] = lambda _, text: text
    text: Callable[[int, int], int] = lambda _, __: 0
    calls: int = 2
    cond: int | None = 1
    left_out: tuple[str, ...] = ()
    encoder: str = "text_encoder"
    prompts: int = 2
    tolerance: float = 1e-6
    references: tuple[tuple[int, int], ...] = ()
    checkpointing: bool = True
    grid: tuple[int, ...] = (4, 6)
    patches: tuple[tuple[str, Any], ...] = ()
    where: Where = TEXT
    fronted: bool = False
    apart: int = 0
    before: int = 0
    of_a_picture: int = 1
    line: int = 1


def qwen_vl(tokenizer, layers=2, **ids):
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    text = SMALL | {"vocab_size": len(tokenizer), "rope_parameters": rope}
    text["num_hidden_layers"] = layers
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
              "out_hidden_size": 16}  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3(tokenizer, cls=Qwen3Model):
    return cls(Qwen3Config(**SMALL, head_dim=8, vocab_size=len(tokenizer)))


def qwen3_vl(tokenizer, cls=Qwen3VLModel):
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6}
    text = SMALL | {"vocab_size": len(tokenizer), "rope_parameters": rope, "head_dim": 8}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
              "out_hidden_size": 16, "deepstack_visual_indexes": [0],
              "num_position_embeddings": 64}  # fmt: skip
    return cls(Qwen3VLConfig(text_config=text, vision_config=vision))


def qwen_vae():
    return AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip


def flow():
    return FlowMatchEulerDiscreteScheduler()


def wake(model, std=0.2):
    """New weights where a model begins with zeros, which make its blocks silent."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=std)
    return model


def ovis():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = OvisImageTransformer2DModel(
        in_channels=16, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    pipe = OvisImagePipeline(
        flow(), vae(shift_factor=0.1), qwen3(tokenizer), tokenizer, transformer
    )
    pipe.user_prompt_begin_id = 12
    return finish(pipe, ALL_QUERIES)


def longcat():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = LongCatImageTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16,
        axes_dims_rope=[4, 6, 6],
    )  # fmt: skip
    pipe = LongCatImagePipeline(
        flow(), vae(16, shift_factor=0.1), qwen_vl(tokenizer), tokenizer, None, transformer
    )
    pipe.tokenizer_max_length = 40
    return finish(pipe, ALL_QUERIES)


def bria():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = BriaTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=[4, 6, 6],
    )  # fmt: skip
    return finish(
        BriaPipeline(transformer, flow(), vae(shift_factor=0.1), t5(other), other), ALL_QUERIES
    )


def fibo():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = BriaFiboTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=[4, 6, 6],
        text_encoder_dim=16,
    )  # fmt: skip
    config = LlamaConfig(**SMALL | {"vocab_size": 128001})
    pipe = BriaFiboPipeline(transformer, flow(), wan_vae(), LlamaForCausalLM(config), tokenizer)
    return finish(pipe, ALL_QUERIES)


def wan_vae():
    return AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip


def krea2():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = Krea2Transformer2DModel(
        in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=16, timestep_embed_dim=16, text_hidden_dim=16,
        num_text_layers=2, text_num_attention_heads=2, text_num_key_value_heads=1,
        text_intermediate_size=16, num_layerwise_text_blocks=1, num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    pipe = Krea2Pipeline(
        flow(), qwen_vae(), qwen3_vl(tokenizer), tokenizer, transformer,
        text_encoder_select_layers=(1, 2),
    )  # fmt: skip
    pipe.prompt_template_encode_start_idx = len(
        tokenizer(pipe.prompt_template_encode_prefix).input_ids
    )
    pipe.prompt_template_encode_num_suffix_tokens = len(
        tokenizer(pipe.prompt_template_encode_suffix).input_ids
    )
    return finish(pipe, ALL_QUERIES)


def cogview3():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = CogView3PlusTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        text_embed_dim=32, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip
    return finish(
        CogView3PlusPipeline(other, t5(other), vae(), transformer, CogVideoXDDIMScheduler()),
        ALL_QUERIES,
    )


def cogview4():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(padding_side="left")
    begin = [(token, tokenizer.convert_tokens_to_ids(token)) for token in BEGIN]
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*BEGIN, "$A"]), special_tokens=begin
    )
    transformer = CogView4Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        text_embed_dim=16, time_embed_dim=8, condition_dim=4, sample_size=16,
    )  # fmt: skip
    config = GlmConfig(**SMALL, head_dim=8, vocab_size=len(tokenizer), pad_token_id=0)
    return finish(
        CogView4Pipeline(tokenizer, GlmModel(config), vae(), transformer, flow()), ALL_QUERIES
    )


def kandinsky5(**options):
    torch.manual_seed(0)
    tokenizer, other = byte_tokenizer(), make_tokenizer()
    other.model_max_length = 77
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=32, time_dim=16, out_visual_dim=4,
        model_dim=32, ff_dim=16, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 6, 6),
        **options,
    )  # fmt: skip
    pipe = Kandinsky5T2IPipeline(
        wake(transformer),
        vae(),
        qwen_vl(tokenizer),
        tokenizer,
        clip(other, CLIPTextModel),
        other,
        flow(),
    )
    pipe.resolutions = [(96, 64)]
    pipe.prompt_template_encode_start_idx = len(
        tokenizer(pipe.prompt_template.partition("{}")[0]).input_ids
    )
    return finish(pipe, ALL_QUERIES).to(torch.float32)  # its timesteps are, and rotations bfloat16


def prx():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    transformer = PRXTransformer2DModel(
        in_channels=4, context_in_dim=32, hidden_size=16, num_heads=2, depth=2, axes_dim=[4, 4],
        mlp_ratio=1.0,
    )  # fmt: skip
    return finish(PRXPipeline(wake(transformer), flow(), t5(other), other, vae()), ALL_QUERIES)


def flux2_vae():
    return AutoencoderKLFlux2(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=1,
        norm_num_groups=1,
    )  # fmt: skip


def ernie():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = ErnieImageTransformer2DModel(
        hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=16, in_channels=4,
        out_channels=4, text_in_dim=16, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    return finish(
        ErnieImagePipeline(wake(transformer), flux2_vae(), qwen3(tokenizer), tokenizer, flow()),
        ALL_QUERIES,
    )


def after_prefix(name):
    return lambda pipe: len(pipe.tokenizer(getattr(pipe, name)).input_ids)


def hunyuanimage():
    torch.manual_seed(0)
    tokenizer, letters = byte_tokenizer(), ByT5Tokenizer()
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, mlp_ratio=1.0, patch_size=(2, 2),
        text_embed_dim=16, text_embed_2_dim=32, rope_axes_dim=(8, 8),
    )  # fmt: skip
    encoder = AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32, 32, 32),
        layers_per_block=1, spatial_compression_ratio=8, sample_size=64, scaling_factor=0.7,
    )  # fmt: skip
    glyphs = T5EncoderModel(
        T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    pipe = HunyuanImagePipeline(
        flow(), encoder, qwen_vl(tokenizer, layers=4), tokenizer, glyphs, letters, transformer,
        AdaptiveProjectedMixGuidance(guidance_scale=2.0), AdaptiveProjectedMixGuidance(),
    )  # fmt: skip
    before = pipe.prompt_template_encode.partition("{}")[0]
    pipe.prompt_template_encode_start_idx = len(tokenizer(before).input_ids)
    pipe.tokenizer_max_length = 60
    return finish(pipe, ALL_QUERIES)


def ideogram4():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = {
        "in_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
        "intermediate_size": 16, "adaln_dim": 16, "llm_features_dim": 32,
        "mrope_section": (4, 2, 2),
    }  # fmt: skip
    transformers = [wake(Ideogram4Transformer2DModel(**config)) for _ in range(2)]
    pipe = Ideogram4Pipeline(flow(), flux2_vae(), qwen3_vl(tokenizer), tokenizer, *transformers)
    return finish(pipe, ALL_QUERIES)


def sprint():
    torch.manual_seed(0)
    parts = sana().components
    old = parts["transformer"].config
    names = inspect.signature(SanaTransformer2DModel.__init__).parameters
    config = {name: old[name] for name in names if name in old}
    transformer = SanaTransformer2DModel(**config | {"guidance_embeds": True})
    pipe = SanaSprintPipeline(**parts | {"transformer": transformer, "scheduler": SCMScheduler()})
    pipe.vae_scale_factor = 16
    return finish(pipe, ALL_QUERIES)


LLAMA_TEMPLATE = {"template": "<|im_start|>Describe the video: {}<|im_end|>"}


def hunyuanvideo():
    torch.manual_seed(0)
    tokenizer, other = byte_tokenizer(), make_tokenizer()
    other.model_max_length = 77
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, mlp_ratio=1.0, text_embed_dim=16,
        pooled_projection_dim=32, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    encoder = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=False,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )  # fmt: skip
    llama = LlamaModel(LlamaConfig(**SMALL | {"num_hidden_layers": 3}, vocab_size=len(tokenizer)))
    pipe = HunyuanVideoPipeline(
        llama, tokenizer, transformer, encoder, flow(), clip(other, CLIPTextModel), other
    )
    before = LLAMA_TEMPLATE["template"].partition("{}")[0]
    LLAMA_TEMPLATE["crop_start"] = len(tokenizer(before).input_ids)
    return finish(pipe, ALL_QUERIES)


def wan22():
    """The small model of Wan 2.2, one denoiser, whose timestep is one for every token."""
    parts = wan().components
    pipe = WanPipeline(**parts, expand_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photo(width, height, seed):
    colours = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(colours)


class Processor:
    """Of Qwen2-VL, whose own asks for one of videos, and that for torchvision."""

    def __init__(self, tokenizer):
        sizes = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
        self.tokenizer, self.image_processor = tokenizer, Qwen2VLImageProcessorPil(**sizes)

    def __call__(self, text, images, padding, return_tensors):
        seen = self.image_processor(images=images, return_tensors=return_tensors)
        counts = iter((seen["image_grid_thw"].prod(1) // 4).tolist())
        texts = []
        for row in text:
            first, *rest = row.split("<|image_pad|>")
            parts = ["<|image_pad|>" * next(counts) + part for part in rest]
            texts.append("".join([first, *parts]))
        assert not [*counts]
        read = self.tokenizer(texts, padding=padding, return_tensors=return_tensors)
        return BatchEncoding({**read, **seen})


def qwen_edit(cls=QwenImageEditPipeline):
    plain = qwenimage()
    plain.tokenizer.add_tokens(MARKS, special_tokens=True)
    ids = plain.tokenizer.convert_tokens_to_ids(MARKS)
    torch.manual_seed(1)
    language = qwen_vl(plain.tokenizer, image_token_id=ids[1], vision_start_token_id=ids[0])
    pipe = cls(
        plain.scheduler, plain.vae, language, plain.tokenizer, Processor(plain.tokenizer),
        plain.transformer,
    )  # fmt: skip
    before = pipe.prompt_template_encode.partition("{}")[0].partition(MARKS[0])[0]
    pipe.prompt_template_encode_start_idx = len(pipe.tokenizer(before).input_ids)
    pipe.set_progress_bar_config(disable=True)
    language.double().eval().requires_grad_(False)
    return pipe


class ChatProcessor(Processor):
    """Of Qwen3-VL: also of text alone, and of messages; its positions are of 32 x 32 pixels."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.image_processor = Qwen2VLImageProcessorPil(patch_size=16, min_pixels=32 * 32)

    def __call__(self, text, images=None, padding_side=None, **options):
        if images is not None:
            self.tokenizer.padding_side = padding_side or self.tokenizer.padding_side
            read = super().__call__(text, images, **options)
            place = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
            return BatchEncoding({**read, "mm_token_type_ids": (read["input_ids"] == place).long()})
        return self.tokenizer(text, padding_side=padding_side, **options)

    def apply_chat_template(self, messages, *, tokenize, **options):
        written = self.tokenizer.apply_chat_template(messages, tokenize=tokenize, **options)
        return [written] if tokenize else written


def qwenimage21():
    torch.manual_seed(0)
    tokenizer = picture_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(MARKS)
    transformer = QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        context_in_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    encoder = AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1] * 4, latents_std=[2.0] * 4,
    )  # fmt: skip
    language = qwen3_vl(tokenizer, Qwen3VLForConditionalGeneration)
    language.config.image_token_id = ids[1]
    pipe = QwenImage21Pipeline(
        flow(), encoder, language, ChatProcessor(tokenizer), wake(transformer)
    )
    return finish(pipe, ALL_QUERIES)


def nucleus():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = NucleusMoEImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, num_key_value_heads=1, joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6), mlp_ratio=6.0, dense_moe_strategy="leave_first_block_dense",
        num_experts=2, moe_intermediate_dim=16, capacity_factors=1.0,
    )  # fmt: skip
    for experts in (each for each in transformer.modules() if hasattr(each, "gate_up_proj")):
        for parameter in experts.parameters():  # which the model leaves as memory was
            torch.nn.init.normal_(parameter, std=0.3)
    language = qwen3_vl(tokenizer, Qwen3VLForConditionalGeneration)
    pipe = NucleusMoEImagePipeline(
        transformer, flow(), qwen_vae(), language, ChatProcessor(tokenizer)
    )
    return finish(pipe, ALL_QUERIES)


def fibo2():
    """With a gist of 4 tokens up to 64 tokens of text, of 8 from 128."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    transformer = BriaFibo2Transformer2DModel(
        in_channels=1, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, cap_feat_dim=48,
        injection_layer_ids=(0, 1), perceiver_num_layers=1, min_num_gist_tokens=4,
        max_num_gist_tokens=8, gist_step=4, gist_min_text_len=64, gist_max_text_len=128,
        axes_dims=(4, 6, 6), axes_lens=(32, 32, 32),
    )  # fmt: skip
    language = qwen3_vl(tokenizer, Qwen3VLForConditionalGeneration)
    pipe = BriaFibo2Pipeline(
        wake(transformer), flow(), flux2_vae(), language, ChatProcessor(tokenizer)
    )
    pipe.text_encoder_out_layers = ((0, 1, 2),) * 3
    return finish(pipe, ALL_QUERIES)


@contextmanager
def transforms():
    """OmniGen's processor is in diffusers beside torchvision alone: where that is missing, these
    stand in for its transforms of pictures."""
    if is_torchvision_available():
        yield
        return
    reader, pipeline = (
        importlib.import_module(f"diffusers.pipelines.omnigen.{name}_omnigen")
        for name in ("processor", "pipeline")
    )
    stand_in = SimpleNamespace(
        Compose=lambda steps: lambda picture: reduce(lambda made, step: step(made), steps, picture),
        Lambda=lambda step: step,
        ToTensor=lambda: lambda picture: torch.tensor(np.array(picture)).movedim(-1, 0) / 255,
        Normalize=lambda mean, std, inplace: lambda made: (made - mean[0]) / std[0],  # noqa: ARG005
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reader, "transforms", stand_in, raising=False)
        name = "OmniGenMultiModalProcessor"
        patched.setattr(pipeline, name, getattr(reader, name), raising=False)
        yield


def omnigen():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    factors = {"short_factor": [1.0] * 8, "long_factor": [1.0] * 8}
    transformer = OmniGenTransformer2DModel(
        in_channels=4, hidden_size=32, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=16, num_layers=2, pad_token_id=0, vocab_size=len(tokenizer),
        rope_scaling=factors, pos_embed_max_size=8, time_step_dim=16,
    )  # fmt: skip
    turned = FlowMatchEulerDiscreteScheduler(invert_sigmas=True, num_train_timesteps=1)
    with transforms():
        pipe = OmniGenPipeline(transformer, turned, vae(), tokenizer)
    collator = pipe.multimodal_processor.collator
    masks = collator.create_mask  # of float32, in which 0 times the least float64 is no number
    collator.create_mask = lambda *given: (masks(*given)[0].double(), None)
    return finish(pipe, ALL_QUERIES)


def joyimage():
    torch.manual_seed(0)
    tokenizer = picture_tokenizer()
    transformer = JoyImageEditTransformer3DModel(
        patch_size=[1, 2, 2], in_channels=4, hidden_size=32, num_attention_heads=2, text_dim=16,
        mlp_width_ratio=1.0, num_layers=2, rope_dim_list=[4, 6, 6],
    )  # fmt: skip
    language = qwen3_vl(tokenizer, Qwen3VLForConditionalGeneration)
    language.config.image_token_id = tokenizer.convert_tokens_to_ids(MARKS[1])
    pipe = JoyImageEditPipeline(
        flow(), wan_vae(), language, tokenizer, wake(transformer), ChatProcessor(tokenizer)
    )
    before = pipe.prompt_template_encode["multiple_images"].partition("{}")[0]
    dropped = len(tokenizer(before).input_ids)
    pipe.prompt_template_encode_start_idx = {"image": dropped, "multiple_images": dropped}
    return finish(pipe, ALL_QUERIES)


def lumina():
    pipe = lumina_next(LuminaNextDiT2DModel)
    torch.nn.init.normal_(pipe.transformer.pad_token)
    wake(pipe.transformer)
    return pipe


def qwen_edit_plus():
    return qwen_edit(QwenImageEditPlusPipeline)


def kontext():
    parts = {name: part for name, part in flux().components.items() if part is not None}
    pipe = FluxKontextPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def glm_tokenizer():
    """Of sentencepiece, in whose pieces turtle is three; "\u2581" is a space."""
    spm = pytest.importorskip("sentencepiece")
    from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer

    text, model = ["a red cat and a dog"] * 40 + ["a blue house on a hill"] * 5, io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=300, model_type="bpe",
        minloglevel=2, user_defined_symbols=["tur", "tle"], hard_vocab_limit=False,
        byte_fallback=True,
    )  # fmt: skip
    with tempfile.NamedTemporaryFile(suffix=".model") as file:
        Path(file.name).write_bytes(model.getvalue())
        return ChatGLMTokenizer(file.name)


def kolors():
    tokenizer = glm_tokenizer()
    from diffusers import KolorsPipeline
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel

    torch.manual_seed(0)
    config = ChatGLMConfig(
        num_layers=2, padded_vocab_size=tokenizer.vocab_size, hidden_size=16, ffn_hidden_size=16,
        kv_channels=8, num_attention_heads=2, seq_length=64, original_rope=True,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=16, in_channels=4,
        out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=1,
        cross_attention_dim=32, encoder_hid_dim=16, encoder_hid_dim_type="text_proj",
        attention_head_dim=(2, 4), norm_num_groups=8, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.014, beta_schedule="scaled_linear", steps_offset=1
    )
    language = ChatGLMModel(config)
    for parameter in language.parameters():  # which the model leaves as memory was
        torch.nn.init.normal_(parameter, std=0.3)
    return finish(KolorsPipeline(vae(), language, tokenizer, unet, scheduler))


def added_keys(**config):
    """A UNet whose text adds keys to those of the picture, at strides 2 and 1."""
    return UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, sample_size=16,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=8, norm_num_groups=8, resnet_time_scale_shift="scale_shift", **config,
    )  # fmt: skip


def deepfloyd():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    unet = added_keys(
        in_channels=3, out_channels=6, cross_attention_dim=16, encoder_hid_dim=32,
        encoder_hid_dim_type="text_proj", addition_embed_type="text",
        addition_embed_type_num_heads=2,
    )  # fmt: skip
    scheduler = DDPMScheduler(variance_type="learned_range", beta_schedule="squaredcos_cap_v2")
    pipe = IFPipeline(
        other, t5(other), unet, scheduler, None, None, None, requires_safety_checker=False
    )
    return finish(pipe, ALL_QUERIES)


def kandinsky2():
    torch.manual_seed(0)
    other = make_t5_tokenizer()
    unet = added_keys(
        in_channels=4, out_channels=8, cross_attention_dim=16, encoder_hid_dim=32,
        encoder_hid_dim_type="text_image_proj", addition_embed_type="text_image",
    )  # fmt: skip
    config = MCLIPConfig(
        transformerDimSize=32, imageDimSize=16, vocab_size=len(other), hidden_size=32,
        num_hidden_layers=2, num_attention_heads=4, intermediate_size=16,
        max_position_embeddings=100, pad_token_id=other.pad_token_id,
    )  # fmt: skip
    codes = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, vq_embed_dim=4,
        num_vq_embeddings=8,
    )  # fmt: skip
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return finish(
        KandinskyPipeline(MultilingualCLIP(config), other, unet, scheduler, codes), ALL_QUERIES
    )


PIPELINES = "diffusers.pipelines"
QWEN = f"{PIPELINES}.qwenimage.pipeline_qwenimage_"
IDEOGRAM = f"{PIPELINES}.ideogram4.pipeline_ideogram4"
DRAWN = "diffusers.models.autoencoders.vae.DiagonalGaussianDistribution.sample"
JOY = f"{PIPELINES}.joyimage.image_processor.find_best_bucket"
VIDEO_OPTIONS = {"num_frames": 5, "max_sequence_length": 48}
GUIDED = {"true_cfg_scale": 2.0, "negative_prompt": ""}
NEWER = {
    "kolors": Known(
        kolors, {}, calls=1, picture=lambda _, __: 0, tolerance=1e-5
    ),
    "ovis": Known(
        ovis, {"max_sequence_length": 200}, dropped=lambda pipe: pipe.user_prompt_begin_id
    ),
    "longcat": Known(
        longcat, {"enable_prompt_rewrite": False},
        dropped=after_prefix("prompt_template_encode_prefix"),
    ),
    "bria": Known(bria, {"max_sequence_length": 16}, calls=1),
    "fibo": Known(fibo, {"max_sequence_length": 64}, calls=1),
    "krea2": Known(
        krea2, {"max_sequence_length": 48}, tolerance=1e-5,
        dropped=after_prefix("prompt_template_encode_prefix"),
        left_out=("text_fusion",),
    ),
    "deepfloyd": Known(
        deepfloyd, {"height": 8, "width": 12, "output_type": "pt"}, calls=1, tolerance=1e-5,
        picture=lambda _, __: 0, where=Where(kind="joint"),
    ),
    "nucleus": Known(
        nucleus, {"return_index": -1, "max_sequence_length": 512}, tolerance=1e-5,
        picture=lambda _, __: 0, text=lambda cells, _: cells,
    ),
    "omnigen": Known(
        omnigen, {}, calls=1, cond=0, picture=lambda _, text: text + 1,
        encoder="transformer.embed_tokens", tolerance=1e-5,
    ),
    "fibo2": Known(
        fibo2, {"negative_prompt": ""}, picture=lambda _, __: 4, left_out=("perceiver",),
        tolerance=1e-5,
    ),
    "joyimage": Known(
        joyimage, {}, picture=lambda _, __: 0, text=lambda cells, _: cells, tolerance=1e-5,
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx["image"],
        patches=((JOY, lambda *_: (64, 96)),),
    ),
    "joyimage-edit": Known(
        joyimage, {"image": photo(96, 64, 0)}, prompts=1, picture=lambda _, __: 0,
        text=lambda cells, _: 2 * cells, tolerance=1e-5, references=((4, 6),),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx["multiple_images"],
        patches=((JOY, lambda *_: (64, 96)), (DRAWN, lambda latents: latents.mode())),
    ),
    "lumina": Known(
        lumina, {"clean_caption": False}, calls=1, cond=0, picture=lambda _, __: 0, tolerance=1e-5
    ),
    "kandinsky2": Known(
        kandinsky2, {"height": 16, "width": 24, "output_type": "pt",
                     "image_embeds": torch.ones(1, 16).double(),
                     "negative_image_embeds": torch.zeros(1, 16).double()},
        calls=1, prompts=1, picture=lambda _, __: 0, text=lambda _, __: 10, tolerance=1e-5,
        where=Where(kind="joint"),
    ),
    "cogview3": Known(cogview3, {"max_sequence_length": 16}, calls=1, tolerance=1e-5),
    "cogview4": Known(cogview4, {}),
    "kandinsky5": Known(
        kandinsky5, {}, picture=lambda _, __: 0, left_out=("text_transformer_blocks",),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx, tolerance=1e-2,
    ),
    "prx": Known(
        prx, {"tokenizer_max_length": 16, "use_resolution_binning": False}, calls=1, prompts=1,
        picture=lambda _, __: 0, tolerance=1e-5,
        patches=((f"{PIPELINES}.prx.pipeline_prx.ftfy", SimpleNamespace(fix_text=str)),),
    ),
    "ernie": Known(
        ernie, {}, calls=1, picture=lambda _, __: 0, text=lambda cells, _: cells, tolerance=1e-5
    ),
    "hunyuanimage": Known(
        hunyuanimage, {}, picture=lambda _, __: 0, text=lambda cells, _: cells,
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx, checkpointing=False,
        left_out=("context_embedder",),
    ),
    "ideogram4": Known(
        ideogram4, {"max_sequence_length": 64, "guidance_schedule": None}, calls=1, cond=None,
        picture=lambda cells, length: length - cells,
        encoder="text_encoder.language_model.embed_tokens", tolerance=1e-5,
        patches=((f"{IDEOGRAM}.QWEN3_VL_ACTIVATION_LAYERS", (0, 1)),),
    ),
    "sprint": Known(
        sprint, EXTRA["sana"] | {"intermediate_timesteps": None}, calls=1, cond=None,
        picture=lambda _, __: 0, left_out=tuple(f"transformer_blocks.{k}.attn1" for k in (0, 1)),
    ),
    "hunyuanvideo": Known(
        hunyuanvideo, VIDEO_OPTIONS | GUIDED | {"prompt_template": LLAMA_TEMPLATE},
        picture=lambda _, __: 0, text=lambda cells, _: cells, left_out=("context_embedder",),
        dropped=lambda _: LLAMA_TEMPLATE["crop_start"], grid=(2, 4, 6), checkpointing=False,
    ),
    "wan22": Known(
        wan22, VIDEO_OPTIONS | {"max_sequence_length": 16}, picture=lambda _, __: 0, grid=(2, 4, 6),
        tolerance=1e-5,
    ),
    "kontext": Known(
        kontext, GUIDED | {"image": photo(64, 32, 0), "max_sequence_length": 16,
                           "_auto_resize": False, "max_area": 64 * 96},
        encoder="text_encoder_2", prompts=1, references=((2, 4),),
    ),
    "klein": Known(
        klein, EXTRA_CHAT["klein"] | {"image": [photo(64, 96, 0), photo(96, 128, 1)]}, prompts=1,
        references=((6, 4), (8, 6)),
    ),
    "flux2": Known(
        flux2, EXTRA_CHAT["flux2"] | {"image": [photo(64, 96, 0)]}, prompts=1, calls=1, cond=None,
        references=((6, 4),),
    ),
    "qwenimage21": Known(
        qwenimage21, {}, calls=1, cond=None, picture=lambda _, __: 0, apart=1,
        dropped=lambda pipe: pipe._drop_idx, fronted=True,
    ),
    "qwenimage21-edit": Known(
        qwenimage21, GUIDED | {"image": [photo(64, 96, 0), photo(64, 32, 1)]}, prompts=1,
        picture=lambda _, __: 0, apart=5, dropped=lambda pipe: pipe._drop_idx,
        references=((6, 4), (2, 4)), of_a_picture=4,
        patches=(
            (f"{PIPELINES}.qwenimage21.pipeline_qwenimage21.calculate_dimensions",
             lambda _, ratio: (64, 96, None) if ratio < 1 else (64, 32, None)),
        ),
    ),
    "qwen-edit": Known(
        qwen_edit, GUIDED | {"image": photo(64, 96, 0)}, prompts=1, references=((6, 4),),
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx,
        patches=((f"{QWEN}edit.calculate_dimensions", lambda *_: (64, 96, None)),),
    ),
    "qwen-edit-plus": Known(
        qwen_edit_plus, GUIDED | {"image": [photo(64, 96, 0), photo(128, 64, 1)]}, prompts=1,
        dropped=lambda pipe: pipe.prompt_template_encode_start_idx,
        references=((6, 4), (2, 4)),
        patches=(
            (f"{QWEN}edit_plus.calculate_dimensions",
             lambda _, ratio: (64, 96) if ratio < 1 else (64, 32)),
        ),
    ),
}  # fmt: skip
