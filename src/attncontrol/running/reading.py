"""What the prompts of a run become: the text of every image in both branches, compared with the ids
that reached the text encoders."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from attncontrol.errors import CallError
from attncontrol.families.encoder import (
    NUMBER,
    Arguments,
    Encoder,
    Texts,
    joined,
    positions,
    text_of,
)
from attncontrol.families.family import Family
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Token
from attncontrol.running.embedded import texts_of
from attncontrol.running.heard import Heard
from attncontrol.running.observers import Hook

Ids = tuple[int, ...]
"""A row of what a text encoder is given."""

_Known = Sequence[Texts | None]
"""The texts of every image, None where they are not known."""

NAMES = ("prompt", "prompt_2", "prompt_3", "prompt_4")
"""Arguments of ``encode_prompt`` that hold texts."""


def watch(pipe: Any, heard: Callable[[str, list[Ids]], None]) -> list[Callable[[], None]]:
    """Tells ``heard`` the rows of every call of a text encoder; returns what ends this."""

    def listener(name: str) -> Hook:
        def hear(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if rows := ids_of(args[0] if args else kwargs.get("input_ids")):
                heard(name, rows)

        return Hook(hear)

    encoders = {
        name: part
        for name, part in pipe.components.items()
        if name.startswith("text_encoder") and isinstance(part, nn.Module)
    }
    return [
        part.register_forward_pre_hook(listener(name), with_kwargs=True).remove
        for name, part in encoders.items()
    ]


def ids_of(given: Any) -> list[Ids]:
    """Those of ids [row position], none of anything else."""
    is_ids = isinstance(given, Tensor) and given.ndim == 2
    return [tuple(row) for row in given.tolist()] if is_ids else []


def prompts_of(encoding: Mapping[str, Any]) -> list[str] | None:
    given = encoding.get("prompt")
    return [given] if isinstance(given, str) else list(given) if given else None


def embeds_of(arguments: Mapping[str, Any], branches: Sequence[str], images: int) -> dict[str, Any]:
    """The embeddings that the denoiser is given, of pipelines that encode prompts in a way of their
    own."""
    states = arguments.get("encoder_hidden_states")
    if not isinstance(states, Tensor) or len(states) != len(branches) * images:
        return {}
    of = dict(zip(branches, states.split(images), strict=True))
    return {"prompt_embeds": of.get("cond"), "negative_prompt_embeds": of.get("uncond")}


def text_of_run(
    pipe: Any,
    family: Family,
    encoding: Mapping[str, Any],
    received: Mapping[str, Sequence[Ids]],
    images: int,
    heard: Collection[Heard] = (),
) -> Text:
    """The text of every image, and of its rows that do not read it; None where it is not known.
    That of embeddings is known if the text encoders were ``heard`` making them."""
    encoders, prompts = family.encoders(pipe), prompts_of(encoding) or range(images)
    texts, negatives = _texts(encoding, images), _negatives(encoding, images)

    def read(of: _Known, how: Arguments, image: int) -> tuple[Token, ...]:
        own, number = of[image], image * len(prompts) // images
        assert own is not None  # Text reads known prompts alone
        tokens = positions(pipe, encoders, own, how := {**how, NUMBER: number})
        if of is negatives and _is_zeros(pipe, encoding):
            return tuple(replace(token, id=0, text="", special=True) for token in tokens)
        for encoder in encoders:
            _require_received(pipe, encoder, text_of(own, encoder), how, received)
        return tokens

    def text(of: _Known, how: Arguments, **others: Text) -> Text:
        name = "negative_prompt_embeds" if of is negatives else "prompt_embeds"
        states = None if None not in of else encoding.get(name)
        known = texts_of(pipe, encoders, states, heard, images)
        said = tuple(
            joined(own, encoders) if own is not None else None if told is None else told[0]
            for own, told in zip(of, known, strict=True)
        )
        return Text(
            said,
            lambda image: read(of, how, image) if (told := known[image]) is None else told[1],
            others,
        )

    uncond = text(negatives, {**encoding, **family.negative})
    said = family.reference(encoding) if family.reference else None
    reference = text(_each({"prompt": said}, NAMES, images), encoding) if said else uncond
    return text(texts, encoding, uncond=uncond, reference=reference)


def _is_zeros(pipe: Any, encoding: Mapping[str, Any]) -> bool:
    """Whether zeros take the place of a negative prompt."""
    zeros = pipe.config.get("force_zeros_for_empty_prompt")
    return encoding.get("negative_prompt") is None and bool(zeros)


def _texts(encoding: Mapping[str, Any], images: int) -> list[Texts | None]:
    return _each(encoding, NAMES, images)


def _negatives(encoding: Mapping[str, Any], images: int) -> list[Texts | None]:
    """Pipelines read an empty text where none is given, but for embeddings."""
    if encoding.get("negative_prompt_embeds") is not None:
        return [None] * images
    given = {name: encoding.get(f"negative_{name}") for name in NAMES}
    given["prompt"] = "" if given["prompt"] is None else given["prompt"]
    return _each(given, NAMES, images)


def _each(given: Mapping[str, Any], names: Sequence[str], images: int) -> list[Texts | None]:
    """The texts of every image, from one for all or a list of one for each prompt."""
    first = given.get("prompt")
    if first is None:
        return [None] * images

    def of(name: str, image: int) -> str:
        value = given.get(name)
        if value is None or value == "":
            return "" if name == "prompt" else of("prompt", image)
        return value if isinstance(value, str) else value[image * len(value) // images]

    return [{name: of(name, image) for name in names} for image in range(images)]


def _require_received(
    pipe: Any,
    encoder: Encoder,
    prompt: str,
    encoding: Mapping[str, Any],
    received: Mapping[str, Sequence[Ids]],
) -> None:
    """Raises CallError where a text encoder was given other ids than the prompt has."""
    if encoder.component is None:
        return
    read = encoder.rows(encoder.read(pipe, prompt, encoding))
    each = [tuple(token.id for token in tokens) for tokens in read]
    rows = received.get(encoder.component, ())
    number = encoder.component.removeprefix("text_encoder")
    name = "tokenizer" if number == encoder.component else f"tokenizer{number}"
    tokenizer: Any = getattr(pipe, name, None) or getattr(pipe, "processor", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # of one for text and pictures
    pad = getattr(tokenizer, "pad_token_id", None)
    wrong = [ids for ids in each if not any(_is_same(ids, row, pad) for row in rows)]
    if not wrong:
        return
    where = f"{encoder.component} of {type(pipe).__name__}"
    remedy = "name positions of the text instead of words, such as words=[2, 5]"
    if not rows:
        raise CallError(
            f"{where} did not run in this call, so what it reads of {prompt!r} is not known; "
            f"{remedy}, or let the pipeline encode the prompt in this call"
        )
    expected = wrong[0]
    got = max(rows, key=lambda row: _agree(expected, row))
    at = _agree(expected, got)
    shown = [
        " ".join(tokenizer.convert_ids_to_tokens(list(ids[at : at + 6]))) or "nothing"
        for ids in (expected, got)
    ]
    raise CallError(
        f"{where} did not read {prompt!r} as its tokenizer does: at position {at} it got "
        f"{shown[1]!r}, not {shown[0]!r}. The pipeline changes the prompt (weights, cleaning, "
        f"several parts); write it as it is read, or {remedy}"
    )


def _is_same(expected: Ids, row: Ids, pad: int | None) -> bool:
    """But for padding on one side, which the denoiser does not read."""
    size = len(expected)
    sides = (row[:size], row[size:]), (row[len(row) - size :], row[: len(row) - size])
    return any(own == expected and not set(rest) - {pad} for own, rest in sides)


def _agree(expected: Ids, row: Ids) -> int:
    pairs = enumerate(zip(expected, row, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(expected), len(row)))
