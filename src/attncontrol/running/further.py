"""Further texts, whose positions follow those of the prompt in every row of a call; nobody sees
them unless an edit says so."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.checks.arguments import shown
from attncontrol.errors import ModelError, WordError
from attncontrol.families.family import Family
from attncontrol.families.parts import default_encoding, told_by
from attncontrol.prompts.tokens import Token
from attncontrol.running.calls import DenoiserCall

_MASKS = ("encoder_attention_mask", "encoder_hidden_states_mask")


@dataclass(frozen=True, eq=False)
class Further:
    """``states`` [1 position dim] of texts one after another, each at its ``places``."""

    states: Tensor
    places: Mapping[str, slice]

    def after(self, call: DenoiserCall) -> DenoiserCall:
        """The call whose rows have all of these texts after their own."""
        states, new = call.arguments["encoder_hidden_states"], self.states.shape[1]
        rows = self.states.to(states).expand(len(states), -1, -1)
        changed = {"encoder_hidden_states": torch.cat([states, rows], 1)}
        if (ids := call.arguments.get("txt_ids")) is not None:
            changed["txt_ids"] = F.pad(ids, (0, 0, 0, new))
        for name in _MASKS:
            if (mask := call.arguments.get(name)) is not None:
                changed[name] = torch.cat([mask, mask.new_ones(len(mask), new)], 1)
        return replace(call, arguments=call.arguments | changed, further=self.places)


def hidden(
    call: AttentionCall, layout: Layout, places: Mapping[str, slice]
) -> tuple[AttentionCall, Layout]:
    """The call, whose text ends with these, as it is without them, and its layout: in
    cross-attention they are taken out and kept beside it, in joint attention nobody sees them."""
    text = range(call.key.shape[2])[layout.text]
    if call.site.kind == "self" or not text:
        return call, layout
    first = text.stop - max(place.stop for place in places.values())
    moved = {name: slice(first + place.start, first + place.stop) for name, place in places.items()}
    layout = replace(layout, text=slice(text.start, first))
    if call.site.kind == "cross":
        beside = {name: (call.key[:, :, at], call.value[:, :, at]) for name, at in moved.items()}
        mask = None if call.mask is None else call.mask[..., :first]
        key, value = call.key[:, :, :first], call.value[:, :, :first]
        return call.replace(key=key, value=value, mask=mask, further=beside), layout
    shown = torch.ones(1, 1, 1, call.key.shape[2], dtype=torch.bool, device=call.key.device)
    shown[..., first : text.stop] = False
    return call.masked(shown), replace(layout, further=moved)


def require_further(pipe: Any, family: Family) -> None:
    """Raises ModelError where nothing can follow the text of the prompt."""
    if family.further is None:
        raise ModelError(
            f"{type(pipe).__name__} cannot read further texts beside its prompt, as this edit "
            "needs; Stable Diffusion, SD3, FLUX.1 and PixArt can"
        )


@torch.no_grad()
def read(
    pipe: Any, family: Family, texts: Sequence[str], encoding: Mapping[str, Any]
) -> Further | None:
    """What the text encoders make of texts, in the way of the prompt of the same run. Raises
    WordError for one that none of them reads to its end."""
    if not texts:
        return None
    method = getattr(type(pipe), told_by(pipe)[0])  # not that of the object, which contexts observe
    accepted = inspect.signature(method).parameters
    named: dict[str, Any] = {name: v for name, v in encoding.items() if name in accepted}
    named |= {name: None for name in named if "prompt" in name and name != "num_images_per_prompt"}
    alone = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    named |= {name: value for name, value in alone.items() if name in accepted}
    known = default_encoding(pipe) | dict(encoding)
    states, places, start = [], {}, 0
    for text in dict.fromkeys(texts):
        tokens = family.tokens(pipe, text, known)
        _require_whole(text, tokens)
        made = method(pipe, **named | {"prompt": text})
        of_text = made if isinstance(made, Tensor) else made[0]
        if family.further == "words":
            of_text = of_text[:, _words(tokens)]
        states.append(of_text)
        places[text] = slice(start, start + of_text.shape[1])
        start += of_text.shape[1]
    return Further(torch.cat(states, 1), places)


def _require_whole(text: str, tokens: Sequence[Token]) -> None:
    end = max((token.end for token in tokens if not token.special), default=0)
    if any(map(str.isalnum, text[end:])):
        raise WordError(
            f"the text {shown(text)} of an edit is longer than the model reads: what follows "
            f"{text[:end][-30:]!r}, {len(text[end:].split())} words, is left out; shorten it"
        )


def _words(tokens: Sequence[Token]) -> list[int]:
    """Without padding: of each encoder what begins the text, its words, and what ends it."""
    positions = []
    for _, group in groupby(tokens, key=lambda token: token.encoder):
        of_encoder = list(group)
        said = [i for i, token in enumerate(of_encoder) if not token.special]
        if said:
            positions += [token.index for token in of_encoder[: said[-1] + 2]]
    return positions
