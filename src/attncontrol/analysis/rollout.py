"""How much of a token reaches another one through all layers: attention rollout and attention flow
(Abnar & Zuidema 2020, arXiv 2005.00928).

    A'_l     = (1 - r) A_l + r I, rows divided by their sums; r = 1/2 is what the residual
               connection carries past attention
    rollout  = A'_L ... A'_2 A'_1; each row is a distribution over the input tokens
    flow     = largest flow from a token after layer L to input tokens, where A'_l[i, j] is the
               capacity of the edge from token i after layer l to token j before it

A_l is the mean over heads of the attention [token token] of layer l, first layer first. The tokens
must be the same in all layers: joint attention [text, picture] within one step, or the
self-attention of one grid.

Rollout costs L products of N x N matrices. Flow runs Dinic's algorithm on a graph of (L + 1) N
nodes and L N^2 edges for every pair of a query and a group of keys: on one core 0.03 s for N = 100
and L = 4, 1.5 s for N = 300 and L = 12. Capacities are rounded down to multiples of 2^-30, so a
flow is short by less than L N^2 2^-30, in practice about 1e-8. The authors' code divides the
rows of flows by their sums, the paper does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from attncontrol.attention.between import Direction
from attncontrol.attention.sites import Where
from attncontrol.axes import Sequences, TokenMaps
from attncontrol.checks.arguments import Share, checked
from attncontrol.errors import RecordError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.verbs.photo import Photo
from attncontrol.verbs.picture import record_picture

Reached = Float[Tensor, "query group"]

_UNIT = 2**30  # of capacity; all that leaves a token is 1


@checked
def with_residual(attention: Sequences, residual: Share = 0.5) -> Sequences:
    """A' of the module's formula. A row of zeros looks at itself."""
    eye = torch.eye(attention.shape[1], dtype=attention.dtype, device=attention.device)
    mixed = (1 - residual) * attention + residual * eye
    total = mixed.sum(2, keepdim=True)
    return torch.where(total > 0, mixed / total.clamp(min=torch.finfo(mixed.dtype).tiny), eye)


@checked
def rollout(layers: Sequence[Tensor], residual: Share = 0.5) -> Sequences:
    """[batch sequence sequence] of layers of this shape: from tokens after the last layer to input
    tokens."""
    result = with_residual(layers[0], residual)
    for attention in layers[1:]:
        result = with_residual(attention, residual) @ result
    return result


@checked
def flow(
    layers: Sequence[Tensor],
    queries: Sequence[int],
    groups: Sequence[Sequence[int]],
    residual: Share = 0.5,
) -> Reached:
    """[query group] for layers [sequence sequence]: from every query after the last layer to each
    group of input tokens."""
    size, depth = layers[0].shape[0], len(layers)
    rows, columns, capacity = [], [], []
    for number, attention in enumerate(layers):
        mixed = (with_residual(attention[None], residual)[0].double() * _UNIT).long().cpu().numpy()
        above, below = np.nonzero(mixed)
        rows.append(above + (number + 1) * size)  # token j before layer l is node l * size + j
        columns.append(below + number * size)
        capacity.append(mixed[above, below])
    edges = tuple(np.concatenate(column) for column in (rows, columns, capacity))
    flows = [[_largest(edges, size, depth, query, group) for group in groups] for query in queries]
    return torch.tensor(flows, dtype=torch.float64)


def _largest(
    edges: tuple[np.ndarray, ...], size: int, depth: int, query: int, group: Sequence[int]
) -> float:
    """All tokens of the group lead to one more node."""
    rows, columns, capacity = edges
    sink = (depth + 1) * size
    ends = np.asarray(list(group))
    at = (np.concatenate([rows, ends]), np.concatenate([columns, np.full(len(ends), sink)]))
    values = np.concatenate([capacity, np.full(len(ends), _UNIT)]).astype(np.int32)
    graph = csr_array(coo_array((values, at), shape=(sink + 1, sink + 1)))
    value: int = maximum_flow(graph, depth * size + query, sink).flow_value
    return value / _UNIT


def joint(records: Mapping[Direction, AttentionMaps]) -> list[Sequences]:
    """Mean over heads and steps of every layer of joint attention, [text, picture] in both axes,
    from recordings of all tokens in all four directions.

    Raises RecordError if the rows do not sum to 1: something that is looked at was not
    recorded.
    """
    layers = []
    for name in records["image->text"].layers:
        mean = {
            of: maps.layers[name][:, 0].nanmean((1, 2)) for of, maps in records.items()
        }  # batch height width token
        text = torch.cat(
            [mean["text->text"][:, 0], mean["text->image"].flatten(1, 2).transpose(1, 2)], 2
        )
        picture = torch.cat(
            [mean["image->text"].flatten(1, 2), mean["image->image"].flatten(1, 2)], 2
        )
        whole = torch.cat([text, picture], 1)
        if (whole.sum(2) - 1).abs().max() > 1e-3:
            raise RecordError(
                f"{name} looks at more than text and picture; its parts cannot be put together"
            )
        layers.append(whole)
    return layers


def joint_of_picture(pipe: Any, picture: Photo, prompt: str, **options: Any) -> list[Sequences]:
    """``joint`` for a picture; ``options`` are those of ``record_picture``. Four forwards, and N^2
    numbers per layer are kept."""
    where = options.pop("where", Where(kind="joint"))
    return joint(
        {
            direction: record_picture(
                pipe, picture, prompt, where=where, direction=direction, **options
            )
            for direction in get_args(Direction)
        }
    )


def to_text(relevance: Sequences, grid: tuple[int, int]) -> TokenMaps:
    """[batch height width token]: from the picture to the text, of a matrix over [text,
    picture]."""
    text = relevance.shape[1] - grid[0] * grid[1]
    return relevance[:, text:, :text].unflatten(1, grid)
