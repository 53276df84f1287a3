"""Any other denoiser with joint attention: where text and picture lie is found by trying.

Sites are all its attention. Once for every shape of its arguments the denoiser runs four times with
attention that returns zeros (``attention.probing``): as it is, with other text, with other latents,
and with one other token of each. It is certain where, in a site, as many positions in a row as the
text has move with the text alone, as many as the picture has cells with the latents alone, the
first token of the text is the first of these and the last cell of the first line lies where rows of
cells have it. Sites that are otherwise are refused when they are looked at, by name.

As for cross-attention (``unknown``), only calls with one branch work, and the text is that of the
pipeline's only tokenizer. Pictures that are packed into a line need an argument that has the
coordinates of cells, or the sizes of pictures.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attncontrol.attention.call import Layout
from attncontrol.attention.probing import moved, places
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families import unknown
from attncontrol.families.encoder import Arguments
from attncontrol.families.family import Family
from attncontrol.families.parts import transformer_sites

TEXT, SAMPLE = "encoder_hidden_states", "hidden_states"
Grid = tuple[int, ...]
Layouts = Mapping[str, Layout | str]
"""Site to where text and picture lie, or why that is not certain."""


def _sites(denoiser: Any) -> tuple[Site, ...]:
    config = getattr(denoiser, "config", {})
    patch = config.get("patch_size") or 1
    stride = patch if isinstance(patch, int) else patch[-1]
    return transformer_sites(denoiser, lambda *_: "joint", stride)


def _matches(pipe: Any) -> bool:
    denoiser = unknown.denoiser_of(pipe)
    return (
        isinstance(denoiser, nn.Module)
        and hasattr(denoiser, "config")
        and len(_sites(denoiser)) > 0
        and unknown.tokenizer_of(pipe) is not None
    )


_LAYOUTS: WeakKeyDictionary[nn.Module, dict[Any, Layouts]] = WeakKeyDictionary()


def _layout(denoiser: Any, arguments: Arguments, site: Site) -> Layout:
    shapes = tuple((name, getattr(value, "shape", None)) for name, value in arguments.items())
    known = _LAYOUTS.setdefault(denoiser, {})
    if shapes not in known:
        known[shapes] = probed(denoiser, arguments)
    found = known[shapes][site.name]
    if isinstance(found, Layout):
        return found
    certain = [name for name, each in known[shapes].items() if isinstance(each, Layout)]
    others = f"; certain are {', '.join(certain)} (where=Where(layers=...))" if certain else ""
    raise ModelError(
        f"{type(denoiser).__name__} belongs to no known family, and where text and picture lie in "
        f"{site.name} is not certain: {found}{others}. Describe it with attncontrol.families."
        "Family (branches, encoders, layout ...) and insert that into attncontrol.families.FAMILIES"
    )


def probed(denoiser: Any, arguments: Arguments) -> Layouts:
    """The layout of every site, or why there is none that is certain."""
    sites, text, sample = _sites(denoiser), arguments.get(TEXT), arguments[SAMPLE]
    if not isinstance(text, Tensor) or not isinstance(sample, Tensor) or text.ndim != 3:
        return dict.fromkeys(
            (site.name for site in sites),
            f"{TEXT} and {SAMPLE} are no tensors of [batch position channel] and of latents",
        )
    text, sample = text.detach(), sample.detach()
    given = {**arguments, TEXT: text, SAMPLE: sample}
    before = places(denoiser, sites, given)
    by_text = moved(before, places(denoiser, sites, given | {TEXT: _other(text)}))
    by_sample = moved(before, places(denoiser, sites, given | {SAMPLE: _other(sample)}))
    found: dict[str, Layout | str] = {
        site.name: _of(by_text.get(site.name), by_sample.get(site.name), given) for site in sites
    }
    for grid in {each.grid for each in found.values() if isinstance(each, Layout)}:
        corner = {TEXT: _first(text), SAMPLE: _corner(sample, grid)}
        by_corner = moved(before, places(denoiser, sites, given | corner))
        found |= {
            name: "its tokens are in another order than those of the text or the cells"
            for name, each in found.items()
            if isinstance(each, Layout)
            and each.grid == grid
            and by_corner[name].nonzero()[:, 0].tolist()
            != sorted([each.text.start, each.image_slice.start + grid[1] - 1])
        }
    return found


def _of(by_text: Tensor | None, by_sample: Tensor | None, given: Arguments) -> Layout | str:
    if by_text is None or by_sample is None or len(by_text) != len(by_sample):
        return "it did not run once, or its queries and keys are not the same positions"
    length, text, picture = given[TEXT].shape[1], _slice(by_text), _slice(by_sample)
    if bool((by_text & by_sample).any()):
        return "positions change with the text and with the latents"
    if text is None or int(by_text.sum()) != length:
        return f"{int(by_text.sum())} positions change with the text, which has {length}"
    grids = [] if picture is None else _grids(given, picture.stop - picture.start)
    if picture is None or len(set(grids)) != 1:
        return f"{int(by_sample.sum())} positions change with the latents, of no known grid"
    return Layout(grids[0], picture, text)


def _slice(changed: Tensor) -> slice | None:
    """Of the positions, if they lie in a row."""
    at = changed.nonzero()[:, 0].tolist()
    whole = bool(at) and at[-1] - at[0] + 1 == len(at)
    return slice(at[0], at[-1] + 1) if whole else None


def _grids(given: Arguments, cells: int) -> list[Grid]:
    """(height, width) of as many cells: patches of [batch channel height width], or what other
    arguments say of packed latents."""
    sample = given[SAMPLE]
    if sample.ndim == 4:
        height, width = sample.shape[-2:]
        patch = math.isqrt(height * width // cells)
        fits = patch > 0 and height // patch * (width // patch) == cells
        return [(height // patch, width // patch)] if fits else []
    if sample.ndim != 3 or sample.shape[1] != cells:
        return []
    others = [value for name, value in given.items() if name not in (TEXT, SAMPLE)]
    return [grid for value in others for grid in _said(value, cells)]


def _said(value: Any, cells: int) -> Iterator[Grid]:
    """By coordinates [... cell axis], whose last are line and column, or (1, height, width)."""
    if isinstance(value, Tensor):
        if value.ndim in (2, 3) and value.shape[-2] == cells and value.shape[-1] in (2, 3):
            at = value.reshape(-1, *value.shape[-2:])[0]
            width = int(at[:, -1].max()) + 1
            lines = torch.arange(cells, device=at.device)
            in_rows = torch.equal(at[:, -2].long() * width + at[:, -1].long(), lines)
            if in_rows and bool((at[:, :-2] == at[:1, :-2]).all()):
                yield cells // width, width
    elif isinstance(value, tuple) and len(value) == 3 and all(isinstance(n, int) for n in value):
        if value[0] == 1 and math.prod(value) == cells:
            yield value[1], value[2]
    elif isinstance(value, (list, tuple)) and value:
        first = value[0] if isinstance(value[0], list) else value
        if len(first) == 1:
            yield from _said(first[0], cells)


def _other(tensor: Tensor) -> Tensor:
    """Another one of the same size, with the generator of the run left alone."""
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
    scale = tensor.float().std().clamp(min=0.1)
    return tensor + (noise.to(tensor.device) * scale).to(tensor.dtype)


def _first(text: Tensor) -> Tensor:
    return torch.cat([_other(text)[:, :1], text[:, 1:]], 1)


def _corner(sample: Tensor, grid: Grid) -> Tensor:
    """With another last cell of the first line."""
    changed, other = sample.clone(), _other(sample)
    if sample.ndim == 3:
        changed[:, grid[1] - 1] = other[:, grid[1] - 1]
    else:
        patch = sample.shape[-1] // grid[1]
        changed[..., :patch, -patch:] = other[..., :patch, -patch:]
    return changed


FAMILY = Family(
    name="unknown-joint",
    matches=_matches,
    denoiser=unknown.denoiser_of,
    sites=_sites,
    branches=unknown.FAMILY.branches,
    encoders=unknown.FAMILY.encoders,
    layout=_layout,
    encode=unknown.FAMILY.encode,
)
