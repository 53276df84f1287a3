"""What text encoders were given inside a block, and what they made of it: of such pieces are the
embeddings that a call is given instead of prompts."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attncontrol.running.observers import Hook

MOST = 64
"""Rows that are kept at most, those of the last calls."""
_DEEP = 4
_KINDS = ("CLIP", "T5", "UMT5", "Gemma")
"""How the classes of text encoders begin that libraries of weights know; language models beside
these return logits, which are large."""


@dataclass(frozen=True, eq=False)
class Heard:
    """A row of ids that the text encoder ``component`` was given. ``layers`` [position width] are
    its features by layer: "last", which may be "-1" normed, "-2", or "-2 normed" by the final norm.
    """

    component: str
    ids: tuple[int, ...]
    layers: Mapping[str, Tensor]


@dataclass(eq=False)
class Hearing:
    """The rows of a block, of whose features embeddings may be made that a run is given.

    Those that were made by hand are kept for all its runs, those that the pipeline's own calls made
    for themselves and for the run after them, which a callback may have handed them to: so a block
    around many runs keeps the features of two.
    """

    runs: int = 0
    rows: deque[tuple[Heard, int | None]] = field(default_factory=lambda: deque(maxlen=MOST))

    def hear(self, rows: Iterable[Heard], *, by_hand: bool) -> None:
        self.rows.extend((row, None if by_hand else self.runs) for row in rows)

    def told(self) -> list[Heard]:
        """What a run that begins may be told by; asked once per run."""
        before, self.runs = self.runs, self.runs + 1
        kept = [each for each in self.rows if each[1] is None or each[1] >= before - 1]
        self.rows.clear()
        self.rows.extend(kept)
        return [row for row, _ in kept]


def listen(pipe: Any, heard: Callable[[list[Heard]], None]) -> list[Callable[[], None]]:
    """Tells ``heard`` the rows of every call of a text encoder; returns what ends this."""

    def listener(name: str) -> Hook:
        def hear(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            ids = args[0] if args else kwargs.get("input_ids")
            if isinstance(ids, Tensor) and ids.ndim == 2:
                heard(rows(name, module, ids, output))

        return Hook(hear)

    return [
        part.register_forward_hook(listener(name), with_kwargs=True).remove
        for name, part in pipe.components.items()
        if name.startswith("text_encoder") and type(part).__name__.startswith(_KINDS)
    ]


@torch.no_grad()
def rows(component: str, module: nn.Module, ids: Tensor, output: Any) -> list[Heard]:
    """Of one call of a text encoder."""
    last = getattr(output, "last_hidden_state", None)
    layers = {"last": output[0] if last is None else last}
    hidden = getattr(output, "hidden_states", None) or ()
    norm = getattr(getattr(module, "text_model", module), "final_layer_norm", None)
    if hidden and hidden[-1] is not last:  # of CLIP, before the norm
        layers["-1"] = hidden[-1]
    for back in range(2, min(_DEEP, len(hidden)) + 1):
        layers[f"-{back}"] = hidden[-back]
        if isinstance(norm, nn.Module):
            layers[f"-{back} normed"] = norm.forward(hidden[-back])
    fitting = {
        name: states.detach()
        for name, states in layers.items()
        if isinstance(states, Tensor) and states.ndim == 3 and states.shape[:2] == ids.shape
    }
    return [
        Heard(component, tuple(row), {name: states[k] for name, states in fitting.items()})
        for k, row in enumerate(ids.tolist() if fitting else ())
    ]


def explained(window: Tensor, pieces: Sequence[Tensor], tolerance: float) -> tuple[int, float]:
    """At how many positions features [position width] are a weighted sum of ``pieces`` of the same
    shape, and what is left at all positions: the mean of |rest| / |features|."""
    rest, known = window, list[Tensor]()
    for piece in pieces:
        size, own = piece.norm(dim=-1, keepdim=True), piece
        for one in known:
            own = own - (own * one).sum(-1, keepdim=True) * one
        left = own.norm(dim=-1, keepdim=True)
        one = torch.where(left > tolerance * size, own / left.clamp(min=1e-30), 0.0)
        rest = rest - (rest * one).sum(-1, keepdim=True) * one
        known.append(one)
    shares = rest.norm(dim=-1) / window.norm(dim=-1).clamp(min=1e-30)
    return int((shares <= tolerance).sum()), float(shares.mean())
