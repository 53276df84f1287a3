"""Tokenizer and text encoder of the bundled models: a CLIP byte-pair vocabulary in which some words
take several tokens."""

import string
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from attncontrol.sprites.models import path
from attncontrol.sprites.scenes import COLORS, NOUNS

MAX_TOKENS = 32
_END_OF_T5 = 1
_PIECES = ["ele ph ant", "back pack", "suit case", "tur tle", "glass es", "pur ple"]
_OTHER_WORDS = [
    "a",
    "an",
    "and",
    "with",
    "the",
    "of",
    "in",
    "on",
    "photo",
    "picture",
    "left",
    "right",
    "big",
    "small",
    ",",
    ".",
]


def make_tokenizer() -> CLIPTokenizer:
    """The CLIP tokenizer of all bundled models: bytes, and merges that make one token of each word
    of the world.

    The words of _PIECES end up in these pieces. Its vocabulary is data, shipped with the first
    model.
    """
    return CLIPTokenizer.from_pretrained(Path(path("sd")) / "tokenizer")


def make_t5_tokenizer() -> T5Tokenizer:
    """Unigram tokenizer with the same words in the same pieces, letters for all others."""
    split = {pieces.replace(" ", ""): pieces.split() for pieces in _PIECES}
    words = [w for w in (*NOUNS, *COLORS, *_OTHER_WORDS) if w not in split and w.isalpha()]
    pieces = ["\u2581" + word for word in words]
    for first, *rest in split.values():
        pieces += ["\u2581" + first, *rest]
    known = dict.fromkeys(
        [*pieces, "\u2581", *string.ascii_letters, *string.digits, *string.punctuation]
    )
    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    scored = [(piece, -1.0 if len(piece.strip("\u2581")) > 1 else -9.0) for piece in known]
    return T5Tokenizer(vocab=special + scored, extra_ids=0, model_max_length=MAX_TOKENS)


@cache
def _t5_of_clip() -> Tensor:
    """T5 id of every CLIP id; both vocabularies cut every word of the world into the same
    pieces."""
    clip, t5 = make_tokenizer(), make_t5_tokenizer()
    table = torch.full((len(clip),), t5.unk_token_id)
    for word in (*NOUNS, *COLORS, *_OTHER_WORDS):
        ours, theirs = (
            tokenizer(word, add_special_tokens=False).input_ids for tokenizer in (clip, t5)
        )
        for one, other in zip(ours, theirs[-len(ours) :], strict=True):
            table[one] = other
    table[clip.eos_token_id] = t5.pad_token_id
    return table


def t5_ids(clip_ids: Tensor) -> Tensor:
    """What the T5 tokenizer makes of the text that the CLIP tokenizer read as ``clip_ids`` [batch
    32], of the same length."""
    shifted = torch.cat([clip_ids[:, 1:], clip_ids[:, -1:]], 1)
    ids = _t5_of_clip()[shifted]
    first_padding = (ids == 0).int().argmax(1)
    return ids.scatter(1, first_padding[:, None], _END_OF_T5)


def t5_positions(device: torch.device) -> Tensor:
    """CLIP position of what T5 reads at each of its own: it has no start token, so one further."""
    return (torch.arange(MAX_TOKENS, device=device) + 1).clamp(max=MAX_TOKENS - 1)


def _clip_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=width // 32,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two causal layers of width 128."""
    return CLIPTextModel(_clip_config(tokenizer, 128))


def make_projected_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Two causal layers of width 64 and a projection of the last token."""
    return CLIPTextModelWithProjection(_clip_config(tokenizer, 64))


def make_pooled_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two causal layers of width 64."""
    return CLIPTextModel(_clip_config(tokenizer, 64))


def make_t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Two bidirectional layers of width 128."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=128,
            d_kv=32,
            d_ff=384,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
        )
    )
