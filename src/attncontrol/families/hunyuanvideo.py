"""HunyuanVideo, and SkyReels-V1 with a first frame in further channels
(``HunyuanVideoTransformer3DModel``): joint attention over [video, Llama]. CLIP enters as a pooled
vector only. Guidance is distilled, or true classifier-free guidance in two calls per step.

The pipeline writes the prompt into a template and drops the positions before it. Padding comes last
and is masked. Blocks that refine the text are no sites.
"""

import math
from typing import Any

from diffusers import (
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families import hunyuanimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    MARK,
    first_channels,
    has_transformer,
    transformer_sites,
    two_calls,
    video_grid,
)
from attncontrol.prompts.tokens import Token, tokenize

_DESCRIBED = (
    HunyuanVideoPipeline, HunyuanSkyreelsImageToVideoPipeline, HunyuanVideoImageToVideoPipeline
)  # fmt: skip


def _denoiser(pipe: Any) -> Any:
    if not isinstance(pipe, _DESCRIBED):
        raise ModelError(
            f"{type(pipe).__name__} has the denoiser of HunyuanVideo, and what it puts into its "
            "sequence is not described; HunyuanVideoPipeline, HunyuanVideoImageToVideoPipeline and "
            "HunyuanSkyreelsImageToVideoPipeline are supported"
        )
    return pipe.transformer


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, hunyuanimage.kind, transformer.config.patch_size)


def cropped(encoding: Arguments) -> int:
    """How many positions come before the prompt. Raises ModelError."""
    start: int | None = encoding["prompt_template"].get("crop_start")
    if start is None:
        raise ModelError(
            'the prompt_template has no "crop_start", so how many positions come before the prompt '
            "is not known; give it one"
        )
    return start


def read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    """The prompt in the template, in which a picture has one position."""
    before, after = encoding["prompt_template"]["template"].format(MARK).split(MARK)
    return tokenize(
        pipe.tokenizer, prompt, padding=False, around=(before, after), encoder="llama",
        length=encoding["max_sequence_length"] + cropped(encoding),
    )  # fmt: skip


def _kept(_: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tokens[cropped(encoding) :]


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    grid = video_grid(transformer, arguments)
    cells = math.prod(grid)
    return Layout(grid, slice(cells), slice(cells, None))


FAMILY = Family(
    name="hunyuanvideo",
    matches=has_transformer(HunyuanVideoTransformer3DModel, but=HunyuanVideoImageToVideoPipeline),
    denoiser=_denoiser,
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("llama", "text_encoder", read, kept=_kept),),
    layout=_layout,
    latents=first_channels(1),
    encode=MAKES_VIDEOS,
    checkpoints=False,
)
