"""HunyuanVideo picture to video: the denoiser of ``hunyuanvideo``, joint attention over [video,
picture, Llama].

LLaVA reads the picture in the template of the prompt, of whose positions every second one is kept,
or every fourth where the first frame takes the place of the noise, which the scheduler then leaves
out. What the template has before the prompt is dropped, and of what comes after it four positions.
The negative prompt is read beside a black picture.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffusers import HunyuanVideoImageToVideoPipeline, HunyuanVideoTransformer3DModel

from attncontrol.errors import ModelError
from attncontrol.families import hunyuanvideo
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.parts import first_channels, has_transformer
from attncontrol.prompts.tokens import Token

_KEPT = {"latent_concat": 2, "token_replace": 4}
_ANSWER = 4  # positions that begin it


def _picture(encoding: Arguments) -> tuple[int, slice]:
    """How many positions it has, and where these are."""
    template: Mapping[str, Any] = encoding["prompt_template"]
    place = slice(template.get("image_emb_start", 5), template.get("image_emb_end", 581))
    return template.get("image_emb_len", 576), place


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokens, (cells, place) = hunyuanvideo.read(pipe, prompt, encoding), _picture(encoding)
    number = pipe.text_encoder.config.image_token_index
    places = [i for i, token in enumerate(tokens) if token.id == number]
    if places != [place.start] or place.stop - place.start != cells:
        raise ModelError(
            f"the prompt_template has its pictures at positions {places}, and says that one of "
            f"{cells} begins at {place.start} and ends at {place.stop}: let it have one, and make "
            "image_emb_start, image_emb_end and image_emb_len fit"
        )
    return (*tokens[: place.start], *[tokens[place.start]] * cells, *tokens[place.start + 1 :])


def _kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    cells, place = _picture(encoding)
    header = pipe.tokenizer.convert_tokens_to_ids("<|end_header_id|>")
    headers = [i for i, token in enumerate(tokens) if token.id == header]
    answer = headers[-1] + 1 if len(headers) > 2 else len(tokens)  # a long prompt is cut before it
    first = hunyuanvideo.cropped(encoding) - 1 + cells
    kept_of = _KEPT[pipe.transformer.config.image_condition_type]
    every = encoding.get("image_embed_interleave") or kept_of
    picture = tokens[place][:: every if 0 < every < 6 else 1]
    return (*picture, *tokens[first : answer - _ANSWER], *tokens[answer:])


def _latents(transformer: Any, arguments: Arguments) -> tuple[slice, ...]:
    if transformer.config.image_condition_type == "token_replace":
        return slice(None), slice(None), slice(1, None)
    return first_channels(1)(transformer, arguments)


FAMILY = replace(
    hunyuanvideo.FAMILY,
    name="hunyuanvideo-picture",
    matches=has_transformer(HunyuanVideoTransformer3DModel, of=HunyuanVideoImageToVideoPipeline),
    encoders=lambda _: (Encoder("llama", "text_encoder", _read, kept=_kept),),
    latents=_latents,
    negative={"image_embed_interleave": 2},  # to whose call the pipeline does not give its own
)
