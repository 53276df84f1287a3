"""Texts of regions: which cells they have, and cross-attention to each by a softmax of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.regions import Region, coverage, require_region
from attncontrol.errors import SettingError

Regional = Mapping[str, Region] | Sequence[tuple[str, Region]]


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of a call with the same regions."""

    regions: Sequence[tuple[str, Region]]
    rows: list[int]

    def covered(self, grid: Sequence[int], like: Tensor, cells: int) -> dict[str, Tensor]:
        """By text how much of every cell its regions cover [region cell], in all frames alike."""
        found: dict[str, list[Tensor]] = {}
        for text, region in self.regions:
            share = coverage(region, *grid[-2:]).flatten().to(like.device)
            found.setdefault(text, []).append(share.repeat(cells // len(share)))
        return {text: torch.stack(shares) for text, shares in found.items()}

    @property
    def at(self) -> slice | list[int]:
        """The rows, as a slice where they are one: no copy."""
        first, last = self.rows[0], self.rows[-1]
        return slice(first, last + 1) if last - first == len(self.rows) - 1 else self.rows


def pairs_of(regions: Regional) -> list[tuple[str, Region]]:
    """Texts with their regions. Raises SettingError for what is none."""
    pairs = list(regions.items() if isinstance(regions, Mapping) else regions)
    for text, region in pairs:
        if not text.strip():
            raise SettingError(f"a region has a text that says something, not {text!r}")
        require_region(region, repr(text))
    return pairs


def mixed(call: AttentionCall, groups: Sequence[Group], grid: Sequence[int], base: float) -> Tensor:
    """The output of cross-attention."""
    output = call.run().clone()
    for group in groups:
        covered = group.covered(grid, call.query, call.query.shape[2])
        total = torch.cat(list(covered.values())).sum(0)
        part, rest = call.rows(group.at), 1 - (1 - base) * total.clamp(max=1)
        result = output[group.at] * rest.to(output)[:, None]
        for text, shares in covered.items():
            weight = (1 - base) * shares.sum(0) / total.clamp(min=1)
            cells = weight.nonzero()[:, 0]
            key, value = part.further[text]
            there = part.of_queries(cells).replace(key=key, value=value, mask=None).kernel()
            result[:, :, cells] += weight.to(output)[cells, None] * there
        output[group.at] = result
    return output
