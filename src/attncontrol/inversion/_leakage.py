"""How far the attention of nouns leaks, as in Dynamic Prompt Learning (Yang et al. 2023, arXiv
2309.15664).

    balance      max over nouns s of   1 - max of G * softmax over tokens of 100 A_s
    disjoint     mean over pairs s, r of   A_s A_r / |A_s| |A_r|
    background   mean over nouns s of   A_s B / |A_s| |B|

A_s is the map of a noun, the sum over its tokens, and B the mask of the background: five clusters
of the picture's cells by their self-attention, without those on which A_s, moved to 0 .. 1, has a
mean above 0.2 for some s. The first is the loss of Attend-and-Excite.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.axes import SelfMap, SpatialMaps
from attncontrol.edits._clusters import clusters
from attncontrol.losses.attend_and_excite import attend_and_excite
from attncontrol.maps.functional import summed, unit_range
from attncontrol.prompts.tokens import Span

_CLUSTERS, _SHARE = 5, 0.2


class Leakage(NamedTuple):
    """The three losses of one picture."""

    balance: Tensor
    disjoint: Tensor
    background: Tensor


def leakage(
    maps: SpatialMaps, nouns: Sequence[Span], contrast: Sequence[slice], background: Tensor
) -> Leakage:
    """Of maps [height width token]; ``background`` [height width] is 0 or 1."""
    positions = [position for noun in nouns for position in noun.positions]
    (balance,) = attend_and_excite(maps[None], [positions], [contrast])
    words = [word.flatten() for word in summed(maps, nouns)]
    pairs = [F.cosine_similarity(a, b, dim=0) for a, b in combinations(words, 2)]
    behind = background.flatten().to(maps)
    off = [F.cosine_similarity(word, behind, dim=0) for word in words]
    disjoint = torch.stack(pairs).mean() if pairs else balance.new_zeros(())
    return Leakage(balance, disjoint, torch.stack(off).mean())


def background_of(maps: SpatialMaps, picture: SelfMap, nouns: Sequence[Span]) -> Tensor:
    """[height width] bool, from maps that are means over the steps; ``picture`` [height width
    height width] is attention among its cells."""
    labels, _ = clusters(picture.flatten(2).flatten(0, 1), None, _CLUSTERS)
    shown = torch.stack([unit_range(word).flatten() for word in summed(maps, nouns)])
    member = F.one_hot(labels).to(shown)
    shares = shown @ member / member.sum(0).clamp(min=1)
    behind = (shares <= _SHARE).all(0)
    return behind[labels].unflatten(0, maps.shape[:2])
