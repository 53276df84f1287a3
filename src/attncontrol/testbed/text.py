"""Tokenizer and text encoder of the bundled models: a CLIP byte-pair vocabulary in which some words take several tokens."""

import json
from itertools import pairwise

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from attncontrol.testbed.scenes import COLORS, NOUNS

MAX_TOKENS = 32
_PIECES = ["ele ph ant", "back pack", "suit case", "tur tle", "glass es", "pur ple"]
_OTHER_WORDS = ["a", "an", "and", "with", "the", "of", "in", "on", "photo", "picture", "left", "right", "big", "small", ",", "."]


def make_tokenizer() -> CLIPTokenizer:
    """CLIP tokenizer over bytes whose merges make one token of each word of the world, except the words of several pieces."""
    split = {pieces.replace(" ", ""): pieces.split() for pieces in _PIECES}
    whole = [w for w in (*NOUNS, *COLORS, *_OTHER_WORDS) if w not in split]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(whole, trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False))
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    for word, pieces in split.items():
        merges += _merges_within(word, pieces, merges)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def _merges_within(word: str, pieces: list[str], merges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Merges to append so that ``word`` ends up in exactly these pieces."""
    ends = {sum(map(len, pieces[: i + 1])) for i in range(len(pieces))}
    new: list[tuple[str, str]] = []
    while True:
        tokens = _apply(word, [*merges, *new])
        position = 0
        for left, right in pairwise(tokens):
            position += len(left)
            if position not in ends:
                new.append((left, right))
                break
        else:
            return new


def _apply(word: str, merges: list[tuple[str, str]]) -> list[str]:
    tokens = [*word[:-1], word[-1] + "</w>"]
    for merge in merges:
        i = 0
        while i < len(tokens) - 1:
            if (tokens[i], tokens[i + 1]) == merge:
                tokens[i : i + 2] = ["".join(merge)]
            i += 1
    return tokens


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two causal layers of width 128."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            projection_dim=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
