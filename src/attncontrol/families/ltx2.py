"""LTX-2 (``LTX2VideoTransformer3DModel``): video and sound together. Self-attention of the video,
then cross-attention to Gemma 3, on packed latents, [uncond, cond] in one call per step.

The tokenizer fills up from the left. The connectors behind the text encoder move the text to the
front and put learned registers behind it, which are keys like others. What concerns the sound is no
site: its own attention, its text, and what video and sound see of each other. Further calls of
a step are those of spatio-temporal and modality guidance. Pictures of later frames lie behind the
video. The pipelines that are given videos are others.
"""

from math import prod
from typing import Any

from diffusers import LTX2Pipeline, LTX2VideoTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.errors import CallError
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MAKES_VIDEOS, has_transformer, one_call, transformer_sites
from attncontrol.prompts.origin import aligned
from attncontrol.prompts.tokens import Token, tokenize

_KINDS: dict[str, Kind] = {"attn1": "self", "attn2": "cross"}


def _sites(transformer: Any) -> tuple[Site, ...]:
    patch = transformer.config.patch_size
    return transformer_sites(
        transformer, lambda name, _: _KINDS.get(name.rpartition(".")[2]), patch
    )


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    text = prompt.strip()
    return tokenize(
        pipe.tokenizer, prompt, length=encoding["max_sequence_length"], padding=False,
        encoder="gemma", written=(text, aligned(prompt, text)),
    )  # fmt: skip


def _kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    _require_masks_in_order(pipe, encoding)
    filling = [Token(0, 0, "", 0, 0, special=True, encoder="gemma")]
    filling *= encoding["max_sequence_length"] - len(tokens)
    has_registers = pipe.connectors.config.video_connector_num_learnable_registers is not None
    return (*tokens, *filling) if has_registers else (*filling, *tokens)


def _require_masks_in_order(pipe: Any, encoding: Arguments) -> None:
    """Raises CallError: of several prompts with several videos each the pipeline repeats the masks
    in another order than the texts, and the connectors put words where the masks say."""
    prompts, several = encoding.get("prompt"), (encoding.get("num_videos_per_prompt") or 1) > 1
    if not several or not isinstance(prompts, list):
        return
    if len({len(_read(pipe, prompt, encoding)) for prompt in prompts}) > 1:
        raise CallError(
            f"{type(pipe).__name__} takes the length of one prompt for that of another where "
            "prompts of different lengths make several videos each, so its words are not where "
            "they should be; give a prompt for every video and leave num_videos_per_prompt out"
        )


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    """The sizes in the arguments are those of latents that are not packed."""
    patch, over_time = transformer.config.patch_size, transformer.config.patch_size_t
    frames = arguments["num_frames"] // over_time
    grid = arguments["height"] // patch, arguments["width"] // patch
    cells = frames * prod(grid)
    given = (arguments["hidden_states"].shape[1] - cells) // prod(grid)
    return Layout(
        (frames, *grid) if frames > 1 else grid, slice(cells),
        references=(Layout((given, *grid), slice(cells, None)),) if given else (),
    )  # fmt: skip


FAMILY = Family(
    name="ltx2",
    matches=has_transformer(LTX2VideoTransformer3DModel, of=LTX2Pipeline),
    sites=_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("gemma", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    encode=MAKES_VIDEOS,
)
