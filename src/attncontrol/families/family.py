"""What there is to know of one model architecture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import TEXT, Site, Where
from attncontrol.errors import ModelError
from attncontrol.families.autoencoder import shifted
from attncontrol.families.encoder import Arguments, Encoder, Texts, positions
from attncontrol.prompts.tokens import Token, merged


def _all(_: Any, __: Arguments) -> tuple[slice, ...]:
    return (slice(None),)


def _transformer(pipe: Any) -> nn.Module:
    denoiser: nn.Module = pipe.transformer
    return denoiser


def _all_text(_: tuple[Site, ...]) -> tuple[Where, None]:
    return TEXT, None


def _all_sites(_: Any) -> str:
    return ""


def _as_they_are(_: Any, prompts: Any) -> Any:
    return prompts


@dataclass(frozen=True)
class Family:
    """The facts of one architecture; what may be left out has a default.

    The model: ``matches(pipe)``; ``denoiser(pipe)``, the transformer of the pipeline;
    ``sites(denoiser)``. ``branches(pipe, nth, parts)`` names the equal parts of the batch of the
    nth denoiser call of a step, in order; ``parts`` is their number, None if the prompts are not
    known. ``running(denoiser)`` is what the names of its sites begin with, of denoisers that take
    turns. ``checkpoints`` is False where diffusers fails under gradient checkpointing.

    The text: ``encoders(pipe)`` are those whose positions the keys of cross- or joint attention
    stand for, one after another; ``negative`` are arguments of ``encode_prompt`` that differ for
    the negative prompt. ``reference(encoding)`` are the texts of the branch of that name, by
    prompt, where it does not read the negative prompt. ``contrast`` are the positions that compete
    in a softmax over tokens; None means the tokens of the prompt alone: special and padding
    positions are not looked at. ``further`` says how other texts may follow that of the prompt:
    with all positions of their encoders, or without padding where that is masked or costs the
    attention of the picture too; None if they may not. ``as_given(pipe, prompts)`` are the prompts
    of a run whose modular pipeline has written something around them.

    The picture: ``layout(denoiser, arguments, site)`` says where it and the text lie in the
    sequences of a site. ``sample`` is the argument that holds the noisy latents, and
    ``latents(denoiser, arguments)`` the part of it that is denoised (not the mask channels of
    inpainting, not the reference tokens of editing models); ``channels`` is the axis of the
    channels where latents are a grid. ``patched`` latents are patches of several pictures, which no
    edit changes. ``encode(pipe, pictures)`` makes clean latents, in the shape that the pipeline's
    loop has, from pictures [batch 3 height width] in [-1, 1]; a string says why there can be none.

    A call: ``time`` is the argument that holds the timestep. ``batch_axis`` names the arguments
    whose batch axis is not the first one, None where there is none; ``rows_of`` takes rows of those
    that are no tensors, from all arguments. ``unguided`` is the ``guidance_scale`` of calls without
    guidance. ``steering(sites)`` is where test-time losses look, at all sites that see the text,
    and the step size of the papers, None if they have none; a string says why there can be no
    steering.
    """

    name: str
    matches: Callable[[Any], bool]
    sites: Callable[[nn.Module], tuple[Site, ...]]
    branches: Callable[[Any, int, int | None], tuple[str, ...]]
    encoders: Callable[[Any], tuple[Encoder, ...]]
    layout: Callable[[Any, Arguments, Site], Layout]
    denoiser: Callable[[Any], nn.Module] = _transformer
    running: Callable[[Any], str] = _all_sites
    checkpoints: bool = True
    negative: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[[Arguments], Sequence[str]] | None = None
    contrast: slice | None = None
    further: Literal["whole", "words"] | None = None
    as_given: Callable[[Any, Any], Any] = _as_they_are
    sample: str = "hidden_states"
    latents: Callable[[Any, Arguments], tuple[slice, ...]] = _all
    channels: int = 1
    patched: bool = False
    encode: Callable[[Any, Tensor], Tensor] | str = shifted
    time: str = "timestep"
    batch_axis: Mapping[str, int | None] = field(default_factory=dict)
    rows_of: Mapping[str, Callable[[Arguments, Tensor], Any]] = field(default_factory=dict)
    unguided: float = 1.0
    steering: Callable[[tuple[Site, ...]], tuple[Where, float | None]] | str = _all_text

    def clean(self, pipe: Any, pictures: Tensor) -> Tensor:
        """The latents of ``encode``. Raises ModelError where there can be none."""
        self.require_encode(pipe)
        assert not isinstance(self.encode, str)
        return self.encode(pipe, pictures)

    def require_encode(self, pipe: Any) -> None:
        """Raises ModelError where pictures that exist cannot become latents."""
        if isinstance(self.encode, str):
            raise ModelError(
                f"pictures that exist cannot be given to {type(pipe).__name__}: {self.encode}"
            )

    def tokens(self, pipe: Any, texts: str | Texts, encoding: Arguments) -> tuple[Token, ...]:
        """The text sequence of a prompt, one token for every position; ``encoding`` are the
        arguments with which the pipeline calls its ``encode_prompt``."""
        of = {"prompt": texts} if isinstance(texts, str) else texts
        return merged(positions(pipe, self.encoders(pipe), of, encoding))
