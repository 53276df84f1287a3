"""Queries and keys of one head in one plane, where near means attended to (after AttentionViz, Yeh
et al. 2023, arXiv 2305.03210).

    q' = c (q - mean q),   k' = (k - mean k) / c,
    |q' - k'|^2 = |q'|^2 + |k'|^2 - 2 <q - mean q, k - mean k>

Moving all keys by the same vector changes no attention, as it adds the same number to all logits of
a query. Moving all queries takes out the preference for keys that all queries share. c is the one
for which - |q' - k'|^2 correlates best with s = <q - mean q, k - mean k> over all pairs. As both
means are 0, neither norm correlates with s, so the correlation is 2 sd(s) / sqrt(c^4 var|q|^2 +
var|k|^2 / c^4 + 4 var(s)), largest for

    c = (var_j |k_j|^2 / var_i |q_i|^2)^(1/8)     of the moved vectors; 1 if a variance is 0

(the paper searches for c). The plane holds the first two principal components of all q' and k'
together; the arrays before it are there for t-SNE or UMAP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Head
from attncontrol.checks.arguments import checked
from attncontrol.running.session import attach
from attncontrol.verbs.photo import Photo
from attncontrol.verbs.picture import noised_call
from attncontrol.verbs.places import require_head

HeadKeys = Float[Tensor, "key dim"]
HeadQueries = Float[Tensor, "query dim"]


@dataclass(frozen=True)
class Embedding:
    """``query`` and ``key`` [position dim] are q' and k', ``query_plane`` and ``key_plane``
    [position 2] their components.

    ``correlation`` is that of - |q' - k'|^2 with s, ``explained`` the share of the variance that
    the plane holds.
    """

    query: np.ndarray
    key: np.ndarray
    query_plane: np.ndarray
    key_plane: np.ndarray
    c: float
    correlation: float
    explained: float


def embed(query: HeadQueries, key: HeadKeys) -> Embedding:
    q, k = ((vectors - vectors.mean(0)).double().cpu().numpy() for vectors in (query, key))
    variances = [float(np.var((vectors**2).sum(1))) for vectors in (q, k)]
    c = (variances[1] / variances[0]) ** 0.125 if min(variances) > 0 else 1.0
    products, q, k = q @ k.T, c * q, k / c
    near = 2 * products - (q**2).sum(1)[:, None] - (k**2).sum(1)
    spread = products.std() * near.std()
    correlation = (
        float(((near - near.mean()) * (products - products.mean())).mean() / spread)
        if spread > 0
        else 0.0
    )
    plane, explained = _plane(np.concatenate([q, k]))
    return Embedding(q, k, plane[: len(q)], plane[len(q) :], c, correlation, explained)


def _plane(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components of points whose mean is 0; each points to where its
    largest coordinate lies."""
    left, sizes, _ = np.linalg.svd(points, full_matrices=False)
    components = left[:, :2] * sizes[:2]
    largest = np.take_along_axis(components, np.abs(components).argmax(0)[None], 0)
    return components * np.where(largest < 0, -1, 1), float(
        (sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-300)
    )


@checked
@torch.no_grad()
def collect(
    pipe: Any,
    pictures: Sequence[Photo],
    prompts: Sequence[str],
    head: Head,
    *,
    timestep: float,
    seed: int = 0,
    **call: Any,
) -> tuple[Tensor, Tensor]:
    """Queries and keys [picture position dim] of one head as the kernel gets them, after
    normalisation and rotation.

    At pictures that are noised to a timestep, see ``picture.noised_call``. Where they lie in joint
    attention is said by the family's ``layout``. Raises SiteError if there is no such head.
    """
    run, (name, number) = attach(pipe), head
    require_head(head, run.sites)
    part = noised_call(pipe, pictures, prompts, timestep=timestep, seed=seed, **call)
    projected: list[Tensor] = []

    def keep(attention: AttentionCall, _: Moment) -> Tensor:
        projected.extend((attention.query[:, number], attention.key[:, number]))
        return attention.run()

    run.forward(part, "probe", sites={name: run.sites[name]}, listen=keep)
    return projected[0], projected[1]
