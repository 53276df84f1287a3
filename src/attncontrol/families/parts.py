"""What several architectures share."""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.errors import ModelError
from attncontrol.families.encoder import Arguments, Encoder, reads_together
from attncontrol.prompts.origin import Origin, aligned, spelled_out
from attncontrol.prompts.tokens import Token, tokenize


def one_call(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    """Classifier-free guidance in one call, [uncond, cond]; after these come the rows of diffusers'
    own perturbed-attention guidance. A further call is one of skip-layer guidance."""
    if nth:
        return ("skip",)
    if parts is None and not hasattr(pipe, "do_classifier_free_guidance"):
        raise ModelError(
            f"{type(pipe).__name__} has no encode_prompt that tells its prompts, and does not say "
            "whether it is guided: its rows are not known"
        )
    own = ("cond", "perturbed") if _perturbs(pipe) else ("cond",)
    guided = pipe.do_classifier_free_guidance if parts is None else parts == len(own) + 1
    return ("uncond", *own) if guided else own


def _perturbs(pipe: Any) -> bool:
    """Whether it is one of diffusers' PAG pipelines with that guidance on."""
    return bool(getattr(pipe, "do_perturbed_attention_guidance", False))


def two_calls(_: Any, nth: int, __: int | None) -> tuple[str, ...]:
    """Classifier-free guidance in two calls, or none."""
    return ("cond", "uncond")[nth : nth + 1]


def text_length(arguments: Arguments) -> int:
    states: Tensor = arguments["encoder_hidden_states"]
    return states.shape[1]


MARK = "\ue000"
"""Stands for the prompt where a pipeline's template is read."""
UNCUT = 10**6
"""Tokens of a text that is not cut off, however long it is."""


def chat(tokenizer: Any, messages: Sequence[Any], **options: Any) -> tuple[str, str]:
    """What the tokenizer's chat template writes before and after the prompt, which is MARK in the
    ``messages``."""
    before, after = tokenizer.apply_chat_template(messages, tokenize=False, **options).split(MARK)
    return before, after


MAKES_VIDEOS = "it makes videos"


def has_transformer(
    cls: type, *, of: type | tuple[type, ...] = object, but: type | tuple[type, ...] = ()
) -> Callable[[Any], bool]:
    """Pipelines whose ``transformer`` is one of a class, all or those ``of`` some classes, ``but``
    those of others."""
    return lambda pipe: (
        isinstance(getattr(pipe, "transformer", None), cls)
        and isinstance(pipe, of)
        and not isinstance(pipe, but)
    )


def patch_grid(denoiser: Any, arguments: Arguments) -> tuple[int, int]:
    """(height, width) of the tokens of a transformer that cuts [batch channel height width] into
    square patches."""
    height, width = arguments["hidden_states"].shape[-2:]
    patch = denoiser.config.patch_size
    return height // patch, width // patch


def first_channels(axis: int) -> Callable[[Any, Arguments], tuple[slice, ...]]:
    """Latents that are the first channels of what a denoiser is given, as many as it predicts."""
    return lambda denoiser, _: (*[slice(None)] * axis, slice(denoiser.config.out_channels))


def patches_of(denoiser: Any) -> tuple[int, int, int]:
    """(frames, height, width) of a patch of a transformer of videos."""
    patch = denoiser.config.patch_size
    if isinstance(patch, int):
        return denoiser.config.get("patch_size_t") or 1, patch, patch
    return tuple(patch)


def video_grid(denoiser: Any, arguments: Arguments) -> tuple[int, int, int]:
    """(frames, height, width) of the tokens of a transformer that cuts [batch channel frames height
    width] into patches."""
    frames, height, width = arguments["hidden_states"].shape[2:]
    over_time, down, across = patches_of(denoiser)
    return frames // over_time, height // down, width // across


def in_line(text: int, grids: Sequence[tuple[int, int]]) -> Layout:
    """Of a sequence of text, picture, and reference pictures."""
    ends = [text, *(text + cells for cells in accumulate(map(math.prod, grids)))]
    places = [slice(start, end) for start, end in pairwise(ends)]
    references = tuple(map(Layout, grids[1:], places[1:]))
    return Layout(grids[0], places[0], slice(text), references=references)


def transformer_sites(
    transformer: Any, kind: Callable[[str, Any], Kind | None], stride: int
) -> tuple[Site, ...]:
    """The modules with an attention processor; ``kind(name, module)`` None leaves one out."""
    modules = [
        (name, module, kind(name, module))
        for name, module in transformer.named_modules()
        if hasattr(module, "processor")
    ]
    return tuple(
        Site(name, its_kind, heads_of(module), stride)
        for name, module, its_kind in modules
        if its_kind is not None
    )


def heads_of(module: Any) -> int:
    heads: int = module.heads if hasattr(module, "heads") else module.num_heads
    return heads


def cross_sites(transformer: Any) -> tuple[Site, ...]:
    """Of blocks that attend to the picture in ``attn1`` and to the text in ``attn2``."""
    patch = transformer.config.patch_size
    return transformer_sites(
        transformer,
        lambda name, _: "cross" if name.endswith("attn2") else "self",
        patch if isinstance(patch, int) else patch[-1],
    )


def joint_sites(transformer: Any) -> tuple[Site, ...]:
    """All attention of a transformer that has no other."""
    return transformer_sites(transformer, lambda *_: "joint", transformer.config.patch_size)


def t5(_: Any) -> tuple[Encoder, ...]:
    """Of pipelines whose only text is that of T5, filled up to ``max_sequence_length``."""
    return (Encoder("t5", "text_encoder", _t5),)


def _t5(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer, length = pipe.tokenizer, encoding["max_sequence_length"]
    written = as_written(pipe, tokenizer, prompt, encoding)
    return tokenize(tokenizer, prompt, length=length, encoder="t5", written=written)


def as_written(
    pipe: Any, tokenizer: Any, prompt: str, encoding: Arguments
) -> tuple[str, Origin] | None:
    """What the pipeline makes of a prompt before the tokenizer reads it, by its own functions."""
    if hasattr(pipe, "maybe_convert_prompt"):
        text, origin = spelled_out(prompt, tokenizer.added_tokens_encoder)
        converted = pipe.maybe_convert_prompt(prompt, tokenizer)
        return converted, origin if converted == text else aligned(prompt, converted)
    if hasattr(pipe, "_text_preprocessing"):
        (text,) = pipe._text_preprocessing(
            prompt, clean_caption=encoding.get("clean_caption", False)
        )
        return text, aligned(prompt, text)
    return None


def refiner_sites(transformer: Any) -> tuple[Site, ...]:
    """Of Lumina 2 and its kin: joint ``layers``, ``noise_refiner`` of the picture;
    ``context_refiner`` sees the text alone."""
    kinds: dict[str, Kind] = {"layers": "joint", "noise_refiner": "self"}
    patch = transformer.config.get("patch_size") or min(transformer.config["all_patch_size"])
    return transformer_sites(transformer, lambda name, _: kinds.get(name.partition(".")[0]), patch)


def patch_layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    """Of cross-attention: the queries are the patches, the keys the text."""
    return Layout(patch_grid(transformer, arguments))


def video_layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    """The same of a video; a single frame is a picture."""
    grid = video_grid(transformer, arguments)
    return Layout(grid if grid[0] > 1 else grid[1:])


def is_modular(pipe: Any) -> bool:
    """Whether it is one of diffusers' modular pipelines, which are made of blocks."""
    return any(cls.__name__ == "ModularPipeline" for cls in type(pipe).__mro__)


def said_by(pipe: Any, name: str, *default: Any) -> Any:
    """An attribute that a pipeline or the blocks of a modular one have, such as a template."""
    holders = (pipe, *(_all_blocks(pipe.blocks) if is_modular(pipe) else ()))
    found = [getattr(holder, name) for holder in holders if hasattr(holder, name)]
    return [*found, *default][0]


def _all_blocks(block: Any) -> Iterator[Any]:
    yield block
    for inner in block.sub_blocks.values():
        yield from _all_blocks(inner)


def told_by(pipe: Any) -> tuple[str, ...]:
    """The methods to which a pipeline that is not modular gives its prompts, the usual one first;
    some have another one for prompts with pictures. Where a processor reads them, which is called
    as a function, or a method reads all texts of a run at once, or what is written around them
    too, it is that which comes before.
    """
    usual = "encode_prompt" if hasattr(type(pipe), "encode_prompt") else "_encode_prompt"
    others = ("encode_prompt_multiple_images",) * hasattr(pipe, "encode_prompt_multiple_images")
    alone = bool(others) and not hasattr(type(pipe), usual)
    if hasattr(pipe, "multimodal_processor") or reads_together(pipe) or alone:
        return ("check_inputs",)
    return usual, *others


def default_encoding(pipe: Any) -> dict[str, Any]:
    """The arguments of ``encode_prompt`` in a call of the pipeline that says nothing about them;
    of a modular one the inputs of its blocks."""
    if is_modular(pipe):
        return {each.name: each.default for each in pipe.blocks.inputs if each.name}
    defaults: dict[str, Any] = {}
    methods = [getattr(type(pipe), name) for name in (told_by(pipe)[0], "__call__")]
    if hasattr(pipe, "multimodal_processor"):
        methods.insert(0, type(pipe.multimodal_processor).__call__)
    for method in methods:
        parameters = inspect.signature(method).parameters.values()
        defaults |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults
