"""Facts of model architectures, one file each. A family is a value: nothing here acts on a pipeline.

Families are found by listing this package. ``FAMILIES.insert(0, my_family)`` teaches the package another architecture.
"""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from attncontrol.errors import UnsupportedError
from attncontrol.processors import AttentionCall
from attncontrol.sites import Kind, Site, Where
from attncontrol.tokens import Token, tokenize

Arguments = Mapping[str, Any]
"""The named arguments of one call of the denoiser."""


@dataclass(frozen=True)
class Layout:
    """Where the picture and the text lie in the sequences of one site.

    The picture is a row-major ``grid`` (height, width), a video (frames, height, width). ``image`` are its queries, in joint
    attention also its keys, as one slice or, where the rows of the batch differ, one for each; ``text`` are keys.
    """

    grid: tuple[int, ...]
    image: slice | tuple[slice, ...] = field(default_factory=lambda: slice(None))
    text: slice = field(default_factory=lambda: slice(None))

    def rows(self, rows: slice) -> "Layout":
        """Of some rows of the batch."""
        return self if isinstance(self.image, slice) else replace(self, image=self.image[rows])


def _all(_: Any, __: Arguments) -> tuple[slice, ...]:
    return (slice(None),)


def encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Clean latents [batch channel height width] of pictures [batch 3 height width] in [-1, 1]."""
    vae = pipe.vae
    mean: Tensor = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist.mean
    return (mean - (vae.config.get("shift_factor") or 0)) * vae.config.scaling_factor


@dataclass(frozen=True)
class Family:
    """The facts of one architecture.

    ``matches(pipe)``; ``denoiser(pipe)``; ``sites(denoiser)``.
    ``branches(pipe, nth, parts)`` names the equal parts of the batch of the nth denoiser call of a step, in order; ``parts`` is
    their number, None if the prompts are not known.
    ``tokens(pipe, prompt, encoding)`` is the text sequence that the keys of cross- or joint attention stand for; ``encoding`` are
    the arguments with which the pipeline calls its ``encode_prompt``.
    ``layout(denoiser, arguments, site)`` says where text and picture lie in the sequences of a site.
    ``steering(sites)`` is the default of sites and step size for test-time losses; a string says why there can be none.
    ``encode(pipe, pictures)`` makes clean latents in the denoiser's own shape from pictures [batch 3 height width] in [-1, 1].
    ``contrast`` are the text positions that compete in a softmax over tokens; None means the tokens of the prompt alone: special
    and padding positions are not looked at.
    ``sample`` is the argument that holds the noisy latents, and ``latents(denoiser, arguments)`` the part of it that is denoised
    (not the mask channels of inpainting, not the reference tokens of editing models). ``time`` is the argument that holds the
    timestep. ``batch_axis`` names the arguments whose batch axis is not the first one, None where there is none.
    """

    name: str
    matches: Callable[[Any], bool]
    denoiser: Callable[[Any], nn.Module]
    sites: Callable[[nn.Module], tuple[Site, ...]]
    branches: Callable[[Any, int, int | None], tuple[str, ...]]
    tokens: Callable[[Any, str, Arguments], tuple[Token, ...]]
    layout: Callable[[Any, Arguments, Site], Layout]
    steering: Callable[[tuple[Site, ...]], tuple[Where, float]] | str
    contrast: slice | None = None
    sample: str = "hidden_states"
    latents: Callable[[Any, Arguments], tuple[slice, ...]] = _all
    encode: Callable[[Any, Tensor], Tensor] = encode
    time: str = "timestep"
    batch_axis: Mapping[str, int | None] = field(default_factory=dict)


def one_call(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    """Classifier-free guidance in one call, [uncond, cond]. A further call is one of skip-layer guidance."""
    if nth:
        return ("skip",)
    guided = pipe.do_classifier_free_guidance if parts is None else parts == 2
    return ("uncond", "cond") if guided else ("cond",)


def two_calls(_: Any, nth: int, __: int | None) -> tuple[str, ...]:
    """Classifier-free guidance in two calls, or none."""
    return ("cond", "uncond")[nth : nth + 1]


def text_length(arguments: Arguments) -> int:
    states: Tensor = arguments["encoder_hidden_states"]
    return states.shape[1]


MARK = "\ue000"
"""Stands for the prompt where a pipeline's template is read."""


def chat(tokenizer: Any, messages: Sequence[Any], **options: Any) -> tuple[str, str]:
    """What the tokenizer's chat template writes before and after the prompt, which is MARK in the ``messages``."""
    before, after = tokenizer.apply_chat_template(messages, tokenize=False, **options).split(MARK)
    return before, after


VIDEO = "losses are defined on the maps of pictures, not of videos"


def patch_grid(denoiser: Any, arguments: Arguments) -> tuple[int, int]:
    """(height, width) of the tokens of a transformer that cuts [batch channel height width] into square patches."""
    height, width = arguments["hidden_states"].shape[-2:]
    patch = denoiser.config.patch_size
    return height // patch, width // patch


def transformer_sites(transformer: Any, kind: Callable[[str, Any], Kind | None], stride: int) -> tuple[Site, ...]:
    """The modules with an attention processor; ``kind(name, module)`` None leaves one out."""
    found = [(name, module, kind(name, module)) for name, module in transformer.named_modules() if hasattr(module, "processor")]
    return tuple(Site(name, of, module.heads, stride) for name, module, of in found if of is not None)


def cross_sites(transformer: Any) -> tuple[Site, ...]:
    """Of blocks that attend to the picture in ``attn1`` and to the text in ``attn2``."""
    return transformer_sites(
        transformer, lambda name, _: "cross" if name.endswith("attn2") else "self", transformer.config.patch_size
    )


def t5_tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    """Of pipelines whose only text is that of T5, filled up to ``max_sequence_length``."""
    return tokenize(pipe.tokenizer, prompt, length=encoding["max_sequence_length"], encoder="t5")


def refiner_sites(transformer: Any) -> tuple[Site, ...]:
    """Of Lumina 2 and its kin: joint ``layers``, ``noise_refiner`` of the picture; ``context_refiner`` sees the text alone."""
    kinds: dict[str, Kind] = {"layers": "joint", "noise_refiner": "self"}
    patch = transformer.config.get("patch_size") or min(transformer.config["all_patch_size"])
    return transformer_sites(transformer, lambda name, _: kinds.get(name.partition(".")[0]), patch)


def patch_layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    """Of cross-attention: the queries are the patches, the keys the text."""
    return Layout(patch_grid(transformer, arguments))


def text_mass(call: AttentionCall, layout: Layout, groups: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """[batch heads *grid group]: how much every picture token attends to each group of text positions.

    ``groups[b]`` are the groups of row b; rows with fewer groups than others are filled with zeros.
    """
    keys = torch.arange(call.key.shape[2], device=call.key.device)[layout.text]
    columns = torch.zeros(len(groups), call.key.shape[2], max(map(len, groups)), device=call.key.device)
    for row, of_row in enumerate(groups):
        for column, positions in enumerate(of_row):
            columns[row, keys[list(positions)], column] = 1
    image = layout.image
    if isinstance(image, tuple):
        query = torch.stack([q[:, of] for q, of in zip(call.query, image, strict=True)])
        call, image = replace(call, query=query, normaliser=None), slice(None)
    mass = call.mass(columns, image)
    if mass.shape[2] != math.prod(layout.grid):
        raise UnsupportedError(
            f"{call.site.name} has {mass.shape[2]} picture queries, but a grid of {layout.grid} was expected; describe this model "
            "with attncontrol.families.Family"
        )
    return mass.unflatten(2, layout.grid)


def default_encoding(pipe: Any) -> dict[str, Any]:
    """The arguments of ``encode_prompt`` in a call of the pipeline that says nothing about them."""
    defaults: dict[str, Any] = {}
    for method in (pipe.encode_prompt, type(pipe).__call__):
        parameters = inspect.signature(method).parameters.values()
        defaults |= {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults


FAMILIES: list[Family] = []


def family_of(pipe: Any) -> Family:
    """The family of a pipeline. Raises UnsupportedError if none matches."""
    if not any(family.name == "unknown" for family in FAMILIES):
        names = sorted((name for _, name, _ in pkgutil.iter_modules(__path__)), key=lambda name: name == "unknown")
        FAMILIES.extend(importlib.import_module(f"{__name__}.{name}").FAMILY for name in names)  # the fallback last
    components = {name: part for name, part in getattr(pipe, "components", {}).items() if part is not None}
    if compiled := [name for name, part in components.items() if hasattr(part, "_orig_mod") and name in ("unet", "transformer")]:
        raise UnsupportedError(f"{compiled[0]} is compiled, where hooks are ignored; use pipe.{compiled[0]}._orig_mod")
    for family in FAMILIES:
        if family.matches(pipe):
            return family
    parts = ", ".join(f"{name}={type(part).__name__}" for name, part in components.items())
    known = ", ".join(family.name for family in FAMILIES)
    raise UnsupportedError(
        f"{type(pipe).__name__} ({parts or 'no components'}) belongs to no known family; known: {known}. "
        "Describe it with attncontrol.families.Family (branches, tokens, layout ...) and insert that into "
        "attncontrol.families.FAMILIES"
    )
