"""Wan 2.1 and 2.2, text or picture to video (``WanTransformer3DModel``): self-attention, then
cross-attention to UMT5; two calls per step.

A first frame that is given lies in further channels, or in place of the noise (Wan 2.2, 5B). Models
of Wan 2.1 attend to CLIP's features of it before the text, in a softmax of its own that is no site.

The large models of Wan 2.2 have two denoisers, one for the noisy and one for the other steps. Sites
are those of both, ``transformer.blocks...`` and ``transformer_2.blocks...``; each has maps of the
steps in which it ran, and losses look at the one that runs.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from diffusers import WanTransformer3DModel
from torch import nn

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import CallError, ModelError
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    cross_sites,
    first_channels,
    has_transformer,
    text_length,
    two_calls,
    video_grid,
)
from attncontrol.prompts.origin import aligned
from attncontrol.prompts.tokens import Token, tokenize


class InTurn(nn.Module):
    """Two denoisers of a pipeline, one for the beginning of a run and one for its end, as one
    module: what is hooked into it is hooked into both, and a further run is one of the last that
    ran."""

    def __init__(self, transformer: Any, transformer_2: Any) -> None:
        super().__init__()
        self.transformer, self.transformer_2 = transformer, transformer_2
        self.config = transformer.config
        self._ran: dict[int, str] = {}  # by thread: pipelines may share both

    @property
    def last(self) -> str:
        """The one that ran last in this thread."""
        return self._ran.get(threading.get_ident(), "transformer")

    def forward(self, **arguments: Any) -> Any:
        last: Any = self.get_submodule(self.last)
        return last.forward(**arguments)  # as nobody's own call

    def register_forward_pre_hook(self, hook: Any, **options: Any) -> Any:
        def before(name: str, *given: Any) -> Any:
            self._ran[threading.get_ident()] = name
            return hook(*given)

        return _Handles(
            [
                part.register_forward_pre_hook(partial(before, name), **options)
                for name, part in self.named_children()
            ]
        )

    def register_forward_hook(self, hook: Any, **options: Any) -> Any:
        return _Handles([part.register_forward_hook(hook, **options) for part in self.children()])


@dataclass(frozen=True)
class _Handles:
    handles: Sequence[Any]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


_IN_TURN: WeakValueDictionary[tuple[int, int], InTurn] = WeakValueDictionary()


def _denoiser(pipe: Any) -> Any:
    parts = pipe.transformer, getattr(pipe, "transformer_2", None)
    if parts[1] is None:
        return parts[0]
    if not isinstance(parts[1], type(parts[0])):
        raise ModelError(
            f"{type(pipe).__name__} has a {type(parts[1]).__name__} beside its denoiser of the "
            "noisy steps, which is not described"
        )
    key = id(parts[0]), id(parts[1])  # whose owners live as long as the value
    if (known := _IN_TURN.get(key)) is None:
        known = _IN_TURN[key] = InTurn(*parts)
    return known


def sees_features(transformer: Any) -> bool:
    """Whether the text comes after features of a picture."""
    return transformer.config.added_kv_proj_dim is not None


def _sites(transformer: Any) -> tuple[Site, ...]:
    before = int(sees_features(transformer))
    return tuple(
        replace(site, before=before) if site.kind == "cross" else site
        for site in cross_sites(transformer)
    )


_TEXT = 512
"""Positions that processors take for the text where features of a picture come before it."""


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    if sees_features(transformer) and (length := text_length(arguments)) != _TEXT:
        raise CallError(
            f"the text has {length} positions, and {type(transformer).__name__} takes the last "
            f"{_TEXT} for the text, behind the features of the picture: call the pipeline with "
            f"max_sequence_length={_TEXT}"
        )
    return Layout(video_grid(transformer, arguments))


def _running(denoiser: Any) -> str:
    return f"{denoiser.last}." if isinstance(denoiser, InTurn) else ""


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    length, text = encoding["max_sequence_length"], prompt_clean(prompt)
    written = text, aligned(prompt, text)
    return tokenize(pipe.tokenizer, prompt, length=length, encoder="t5", written=written)


FAMILY = Family(
    name="wan",
    matches=has_transformer(WanTransformer3DModel),
    denoiser=_denoiser,
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("t5", "text_encoder", _read),),
    layout=_layout,
    latents=first_channels(1),
    encode=MAKES_VIDEOS,
    running=_running,
)
