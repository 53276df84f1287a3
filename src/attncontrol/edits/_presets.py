"""What published methods share with the source, in which layers and steps, for ``Share.preset``.

    rf-edit        V in single blocks 20 .. 37, first fifth       Wang 2024, arXiv 2411.04746
    fireflow       V in all single blocks, first step             Deng 2024, arXiv 2412.07517
    stable-flow    K, V in nine vital blocks                      Avrahami 2024, arXiv 2411.14430
    freeflux-add   K, V in seven blocks that mind positions       Wei 2025, arXiv 2503.16153
    freeflux-pose  K, V in thirteen blocks that mind contents     the same
    consistedit    Q, K in all blocks, first third                Yin 2025, arXiv 2510.17803
    consistedit-outside    Q, K, V outside of a region            the same, beside it
    kv-edit        K, V outside of a region                       Zhu 2025, arXiv 2502.17363

Layers are those of the official codes for FLUX, its 19 double blocks counted before its 38 single
ones. rf-edit and consistedit choose their share of the run for every picture; a fifth and a third
are ours: ``dataclasses.replace(Share.preset("rf-edit"), stop=0.1)``. Officially the region of
consistedit is found in maps, and what kv-edit leaves has the source's latents after every step too,
as beside it ``Remove(region, masked=0.0, kept=1.0, grow=0.0)`` does.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def _blocks(*numbers: int) -> tuple[str, ...]:
    names = ("transformer_blocks", "single_transformer_blocks")
    return tuple(f"{names[n > 18]}.{n - 19 * (n > 18)}" for n in numbers)


SHARES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "rf-edit": {"what": ("value",), "stop": 0.2, "layers": _blocks(*range(39, 57))},
        "fireflow": {"what": ("value",), "stop": 0.0, "layers": _blocks(*range(19, 57))},
        "stable-flow": {"layers": _blocks(0, 1, 17, 18, 25, 28, 53, 54, 56)},
        "freeflux-add": {"layers": _blocks(1, 2, 4, 26, 30, 54, 55)},
        "freeflux-pose": {"layers": _blocks(0, 7, 8, 9, 10, 18, 25, 28, 37, 42, 45, 50, 56)},
        "consistedit": {"what": ("query", "key"), "stop": 1 / 3},
        "consistedit-outside": {"what": ("query", "key", "value")},
        "kv-edit": {"what": ("key", "value")},
    }
)
MADE_FOR = "FLUX.1, with 19 double and 38 single blocks (dev, schnell, Kontext)"


def made_for(layers: tuple[str, ...]) -> str:
    """Of which models those of a preset are; empty for others."""
    names = [name for name, of in SHARES.items() if layers and of.get("layers") == layers]
    return f"layers of the preset {names[0]}, which is for {MADE_FOR}" if names else ""


OUTSIDE = frozenset({"consistedit-outside", "kv-edit"})
"""Those that are of all cells but a region."""
