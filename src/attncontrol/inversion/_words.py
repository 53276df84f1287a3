"""Texts with other token embeddings at some positions, as the text encoder of Stable Diffusion 1
and 2 makes them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attncontrol.errors import CallError
from attncontrol.prompts.alignment import align
from attncontrol.prompts.tokens import Token
from attncontrol.running.calls import DenoiserCall

TEXT = "encoder_hidden_states"


def embedded(pipe: Any, tokens: Sequence[Token], places: Sequence[int]) -> Tensor:
    """[token channel]: what the text encoder has for the tokens at some positions."""
    table = pipe.text_encoder.get_input_embeddings().weight
    return table[[tokens[place].id for place in places]].detach()


def encoded(pipe: Any, tokens: Sequence[Token], places: Sequence[int], vectors: Tensor) -> Tensor:
    """[1 position channel] of a prompt, whose tokens at ``places`` are ``vectors`` [token channel]
    for the text encoder."""
    ids = torch.tensor([[token.id for token in tokens]], device=vectors.device)
    with _reading(pipe.text_encoder, places, vectors):
        return pipe.text_encoder.forward(ids)[0]  # hooks of __call__ see own calls only


def moved(
    source: tuple[Token, ...], target: tuple[Token, ...], prompts: tuple[str, str],
    places: Sequence[int],
) -> tuple[list[int], list[int]]:  # fmt: skip
    """Which of the ``places`` of a source, by their number, another prompt has too, and where."""
    found = align(source, target, *prompts)
    pairs = [
        (number, int(here))
        for number, place in enumerate(places)
        for here in (found.matrix[place] * found.kept).nonzero()[:, 0]
    ]
    return [number for number, _ in pairs], [here for _, here in pairs]


def with_texts(call: DenoiserCall, texts: Tensor) -> DenoiserCall:
    """``texts`` [image position channel] in the conditional rows."""
    states = call.arguments[TEXT]
    rows = [texts.to(states) if b == "cond" else states[call.rows(b)] for b in call.branches]
    return replace(call, arguments=call.arguments | {TEXT: torch.cat(rows)})


def require_plain_texts(call: DenoiserCall, texts: Tensor) -> None:
    """Raises CallError where the denoiser reads something else than the encoder says of the
    prompts."""
    own = call.arguments[TEXT][call.rows("cond")]
    if own.shape != texts.shape or not torch.allclose(own, texts.to(own), rtol=1e-2, atol=1e-2):
        raise CallError(
            "learned nouns are put into what the text encoder reads, but the pipeline changes what "
            "it says (clip_skip, weights, embeddings of your own): leave that out, or invert with "
            "NullText()"
        )


@contextmanager
def _reading(encoder: Any, places: Sequence[int], vectors: Tensor) -> Iterator[None]:
    def put(_: Any, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[0, list(places)] = vectors.to(output)
        return output

    hook = encoder.get_input_embeddings().register_forward_hook(put)
    try:
        yield
    finally:
        hook.remove()
