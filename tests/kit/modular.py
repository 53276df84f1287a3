"""Modular pipelines of diffusers beside the plain ones of the same weights."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from transformers import Qwen3VLForConditionalGeneration

from attncontrol.sprites.training.text import make_t5_tokenizer
from tests.kit import zoo_chat, zoo_newer, zoo_videos
from tests.kit.zoo import finish

PROMPTS = ["a red cat and a turtle", "a red dog"]
SEED = 3
BLOCKS = "diffusers.modular_pipelines"


def modular(blocks, plain, workflow="text2image"):
    """The parts of a pipeline in blocks of diffusers."""
    blocks = getattr(diffusers, blocks)()
    blocks = blocks.get_workflow(workflow) if blocks._workflow_map else blocks
    for block in inner(blocks):
        if hasattr(block, "prompt_template_encode_start_idx"):
            block.prompt_template_encode_start_idx = plain.prompt_template_encode_start_idx
    pipe = blocks.init_pipeline()
    own = {name: part for name, part in plain.components.items() if name in pipe.components}
    pipe.update_components(**own)
    for block in inner(pipe._blocks):
        if hasattr(block, "set_progress_bar_config"):
            block.set_progress_bar_config(disable=True)
    return pipe


def inner(block):
    yield block
    for one in block.sub_blocks.values():
        yield from inner(one)


@dataclass(frozen=True)
class Case:
    """``blocks`` of diffusers and the plain pipeline that ``make`` makes; ``call`` is for both,
    ``plain`` for that one alone, ``guider`` for the modular one. ``patches`` are values by path."""

    blocks: str
    make: Callable[[], Any]
    call: Mapping[str, Any] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=dict)
    branches: tuple[str, ...] = ("cond", "uncond")
    guider: Any = None
    patches: Mapping[str, Any] = field(default_factory=dict)
    workflow: str = "text2image"
    prompts: int = 2
    output: str = "images"


NEGATIVE = {"negative_prompt": ["a frog"] * 2}
CHAT = {"max_sequence_length": 96, "text_encoder_out_layers": (1,)}
FTFY = SimpleNamespace(fix_text=str)


def flux2():
    """With the sentence of the blocks, which has a space where the pipeline breaks the line."""
    pipe = zoo_chat.flux2()
    pipe.system_message = pipe.system_message.replace("\n", " ")
    return pipe


class Processor:
    """Of text, as that of Qwen3-VL holds its tokenizer."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def apply_chat_template(self, *args, **options):
        return self.tokenizer.apply_chat_template(*args, **options)


def flux3(blocks="Flux3AutoBlocks", workflow="text2image", writes_anew=False):
    """Of FLUX.3 there is no plain pipeline. The block that writes the prompt anew is left out
    unless ``writes_anew``."""
    torch.manual_seed(0)
    tokenizer = zoo_chat.byte_tokenizer()
    scheduler, encoder, _ = zoo_chat.flux2_parts()
    transformer = diffusers.Flux3Transformer2DModel(
        in_channels=4, cond_in_channels=4, num_layers=1, num_single_layers=2,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, timestep_channels=16,
        axes_dims_rope=(4, 4, 4, 4), flow_map="Distilled" in blocks,
    )  # fmt: skip
    blocks = getattr(diffusers, blocks)()
    if not writes_anew:
        blocks.sub_blocks.pop("prompt_upsampler")
    pipe = blocks.get_workflow(workflow).init_pipeline()
    pipe.update_components(
        scheduler=scheduler, vae=encoder, transformer=transformer, tokenizer=Processor(tokenizer),
        text_encoder=zoo_newer.qwen3_vl(tokenizer, Qwen3VLForConditionalGeneration),
    )  # fmt: skip
    for block in inner(pipe._blocks):
        if hasattr(block, "set_progress_bar_config"):
            block.set_progress_bar_config(disable=True)
    return finish(pipe, ("to_q",))


def anima():
    """Of Anima there is no plain pipeline either."""
    torch.manual_seed(0)
    tokenizer, other = zoo_chat.byte_tokenizer(), make_t5_tokenizer()
    conditioner = diffusers.AnimaTextConditioner(
        source_dim=16, target_dim=32, model_dim=16, num_layers=1, num_attention_heads=2,
        mlp_ratio=1.0, target_vocab_size=len(other), min_sequence_length=24,
    )  # fmt: skip
    pipe = diffusers.AnimaAutoBlocks().get_workflow("text2image").init_pipeline()
    pipe.update_components(
        scheduler=zoo_newer.flow(), vae=zoo_newer.qwen_vae(), tokenizer=tokenizer,
        t5_tokenizer=other, text_encoder=zoo_newer.qwen3(tokenizer), text_conditioner=conditioner,
        transformer=zoo_videos.cosmos().transformer.float(),
    )  # fmt: skip
    for block in inner(pipe._blocks):
        if hasattr(block, "set_progress_bar_config"):
            block.set_progress_bar_config(disable=True)
    return finish(pipe, ("nothing",))


def krea2_patches():
    lengths = zoo_newer.krea2()
    own = f"{BLOCKS}.krea2.encoders."
    return {
        f"{own}KREA2_TEXT_ENCODER_SELECT_LAYERS": (1, 2),
        f"{own}_PROMPT_TEMPLATE_ENCODE_START_IDX": lengths.prompt_template_encode_start_idx,
        f"{own}_PROMPT_TEMPLATE_ENCODE_NUM_SUFFIX_TOKENS": (
            lengths.prompt_template_encode_num_suffix_tokens
        ),
    }


EDIT = {"image": zoo_newer.photo(64, 96, 0), "negative_prompt": "a frog"}
CASES = {
    "flux-kontext": Case(
        "FluxKontextAutoBlocks", zoo_newer.kontext,
        {"image": zoo_newer.photo(64, 32, 0), "max_sequence_length": 16, "_auto_resize": False,
         "max_area": 64 * 96},
        branches=("cond",), workflow="image_conditioned", prompts=1,
    ),
    "qwenimage-edit": Case(
        "QwenImageEditAutoBlocks", zoo_newer.qwen_edit, EDIT, {"true_cfg_scale": 4.0},
        workflow="image_conditioned", prompts=1,
        patches={
            f"{BLOCKS}.qwenimage.encoders.calculate_dimensions": lambda *_: (64, 96, None),
            f"{zoo_newer.QWEN}edit.calculate_dimensions": lambda *_: (64, 96, None),
        },
    ),
    "qwenimage-edit-plus": Case(
        "QwenImageEditPlusAutoBlocks", zoo_newer.qwen_edit_plus,
        EDIT | {"image": [zoo_newer.photo(64, 96, 0), zoo_newer.photo(64, 96, 1)]},
        {"true_cfg_scale": 4.0}, prompts=1,
        patches={
            f"{BLOCKS}.qwenimage.encoders.calculate_dimensions": lambda *_: (64, 96, None),
            f"{zoo_newer.QWEN}edit_plus.calculate_dimensions": lambda *_: (64, 96),
        },
    ),
    "zimage": Case(
        "ZImageAutoBlocks", zoo_chat.zimage, {"max_sequence_length": 128}, {"guidance_scale": 2.0},
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
    ),
    "qwenimage": Case(
        "QwenImageAutoBlocks", zoo_chat.qwenimage, NEGATIVE | {"max_sequence_length": 64},
        {"true_cfg_scale": 4.0},
    ),
    "qwenimage21": Case(
        "QwenImage21AutoBlocks", zoo_newer.qwenimage21, NEGATIVE, {"true_cfg_scale": 3.0},
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0),
    ),
    "qwenimage21-turbo": Case(
        "QwenImage21TurboAutoBlocks", zoo_newer.qwenimage21, branches=("cond",)
    ),
    "klein": Case(
        "Flux2KleinAutoBlocks", zoo_chat.klein, CHAT, {"guidance_scale": 1.0}, branches=("cond",)
    ),
    "klein-base": Case(
        "Flux2KleinBaseAutoBlocks", zoo_chat.klein, CHAT, {"guidance_scale": 4.0}
    ),
    "flux2": Case(
        "Flux2AutoBlocks", flux2, CHAT | {"max_sequence_length": 480}, branches=("cond",)
    ),
    "ernie": Case("ErnieImageAutoBlocks", zoo_newer.ernie, NEGATIVE, {"guidance_scale": 4.0}),
    "krea2": Case(
        "Krea2AutoBlocks", zoo_newer.krea2, NEGATIVE | {"max_sequence_length": 48},
        {"guidance_scale": 4.5}, patches=krea2_patches(),
    ),
    "wan": Case(
        "WanBlocks", zoo_chat.wan, NEGATIVE | {"max_sequence_length": 16, "num_frames": 5},
        {"guidance_scale": 5.0}, output="videos",
        patches={
            f"{BLOCKS}.wan.encoders.ftfy": FTFY,
            "diffusers.pipelines.wan.pipeline_wan.ftfy": FTFY,
        },
    ),
}  # fmt: skip


class Pair:
    """A plain pipeline and a modular one, called in the same way; pictures of a run."""

    def __init__(self, case):
        self.case, self.plain = case, case.make()
        self.modular = modular(case.blocks, self.plain, case.workflow)
        if case.guider is not None:
            self.modular.update_components(guider=case.guider)

    def run(self, pipe, control=None, **more):
        case = self.case
        prompt = PROMPTS[0] if case.prompts == 1 else list(PROMPTS)  # Z-Image writes into the list
        call = {"prompt": prompt, "height": 64, "width": 96, "num_inference_steps": 2, **case.call}
        call |= {"generator": torch.Generator().manual_seed(SEED), "output_type": "np"} | more
        own = {"output": case.output} if pipe is self.modular else dict(case.plain)
        with self.patched(), (control or (lambda _: contextlib.nullcontext()))(pipe) as seen:
            output = pipe(**call, **own)
        pictures = output if pipe is self.modular else output[0]
        return seen, np.asarray(pictures)

    @contextlib.contextmanager
    def patched(self):
        with contextlib.ExitStack() as stack:
            for path, value in self.case.patches.items():
                stack.enter_context(patch(path, value, create=True))
            yield
