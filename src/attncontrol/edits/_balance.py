"""How strongly texts look at their own picture and at that of the source, by the weight of their
own keys: what is found in one step is kept in ``notes``, by image."""

from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.extended import extended
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source
from attncontrol.edits._places import positions

WEIGHTS = tuple(1 + i / 100 for i in range(21))


def measure(
    notes: dict[Any, Any],
    call: AttentionCall,
    more: tuple[Tensor, Tensor],
    now: Moment,
    source: Source,
) -> None:
    """Adds the masses of a call whose queries also see ``more`` keys with values, in conditional
    rows that are no source's; for later steps."""
    notes["measured"] = now.step.index
    for row in range(len(call.query))[now.rows("cond")]:
        image = now.image_of_row(row)
        if now.source_of(source, image) != image:
            own, text = positions(call, now, row)
            seen = extended(call.rows([row]), more[0][[row]], more[1][[row]])
            found = masses(seen, text, own, call.key.shape[2])
            notes["masses", image] = notes.get(("masses", image), 0.0) + found


def masses(call: AttentionCall, text: Tensor, own: Tensor, first: int) -> Tensor:
    """For each of WEIGHTS of the keys before ``first`` the attention of the ``text`` to the keys
    ``own`` and to those from ``first`` on, sums over all else [weight 2], float64."""
    sums = torch.zeros(len(WEIGHTS), 2, dtype=torch.float64)
    for head in range(call.query.shape[1]):
        part = call.of_heads([head]).of_queries(text)
        for nth, weight in enumerate(WEIGHTS):
            key = part.key.clone()
            key[:, :, :first] *= weight
            seen = part.replace(key=key).probabilities().sum((0, 1, 2), dtype=torch.float64)
            sums[nth] += torch.stack([seen[own].sum(), seen[first:].sum()]).cpu()
    return sums


def balanced(sums: Tensor, ratio: float) -> float:
    """The weight with which the first of both masses is ``ratio`` times the other, between those
    of WEIGHTS; the first or last of these if all make it more or less."""
    over = (sums[:, 0] - ratio * sums[:, 1]).tolist()
    if over[0] >= 0 or max(over) < 0:
        return WEIGHTS[0] if over[0] >= 0 else WEIGHTS[-1]
    nth = next(n for n, value in enumerate(over) if value >= 0)
    share = over[nth - 1] / (over[nth - 1] - over[nth])
    return WEIGHTS[nth - 1] + share * (WEIGHTS[nth] - WEIGHTS[nth - 1])


def weighted(
    notes: dict[Any, Any], call: AttentionCall, now: Moment, weight: float, ratio: float
) -> AttentionCall:
    """The call whose keys have ``weight``, or that which an earlier step found for their image."""
    of_rows, known = [], notes.get("measured", now.step.index) < now.step.index
    for row in range(len(call.query)):
        found = notes.get(("masses", now.image_of_row(row))) if known else None
        of_rows.append(weight if found is None else balanced(found, ratio))
    return call.replace(key=call.key * call.key.new_tensor(of_rows)[:, None, None, None])
