"""Where attention is computed: sites and the selection of sites."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from attncontrol.checks.arguments import Count, Such, check_fields
from attncontrol.errors import SettingError, SiteError

Kind = Literal["self", "cross", "joint"]

Head = tuple[str, int]
"""(site, head)."""


@dataclass(frozen=True)
class Site:
    """One place in the denoiser where attention is computed.

    ``name`` is the module path, verbatim. ``stride`` is the side of one attention cell in latent
    cells: a site of stride 4 sees a 64 x 64 latent as a 16 x 16 grid. ``before`` is how many other
    attention calls of the module come first, such as one to the features of a picture.
    """

    name: str
    kind: Kind
    heads: int
    stride: int
    before: int = 0

    def grid(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """(height, width) of the attention grid; every halving rounds up, as strided convolutions
        with padding do."""
        height, width, stride = latent_height, latent_width, self.stride
        while stride > 1:
            height, width, stride = -(-height // 2), -(-width // 2), stride // 2
        return height, width


@dataclass(frozen=True)
class Where:
    """Which sites: None means any.

    ``kind`` is one kind or several. ``layers`` are module paths or their leading parts
    (``"up_blocks.1"`` selects one block, never ``up_blocks.10``), or shell patterns
    (``"*.attentions.0.*"``). ``stride`` selects one resolution independent of the picture size.

        with perturb(pipe, SoftIdentity(), scale=3.0, where=Where("self", layers=("mid_block",))):
            image = pipe("a cat").images[0]
    """

    kind: Kind | tuple[Kind, ...] | None = None
    stride: Count | None = None
    layers: Annotated[tuple[str, ...], Such("a tuple of paths, such as ('mid_block',)")] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind == ():
            raise SettingError("Where.kind=() selects nothing; None selects every kind")

    def select(self, sites: Iterable[Site]) -> tuple[Site, ...]:
        """Matching sites in model order. Raises SiteError if there is none."""
        known = tuple(sites)
        chosen = tuple(site for site in known if self.matches(site))
        if not chosen:
            strides = sorted({site.stride for site in known if self._of_kind(site)})
            names = "\n  ".join(
                f"{s.name} ({s.kind}, stride {s.stride}, {s.heads} heads)" for s in known
            )
            raise SiteError(
                f"no attention site matches {self}. Strides here: {strides}. Sites here:\n  {names}"
            )
        return chosen

    def _of_kind(self, site: Site) -> bool:
        return self.kind is None or site.kind in (
            (self.kind,) if isinstance(self.kind, str) else self.kind
        )

    def matches(self, site: Site) -> bool:
        """Whether it is one of these."""
        return (
            self._of_kind(site)
            and self.stride in (None, site.stride)
            and (
                not self.layers or any(path_matches(site.name, pattern) for pattern in self.layers)
            )
        )


ALL: tuple[Kind, ...] = ("self", "cross", "joint")
TEXT = Where(kind=("cross", "joint"))
"""All sites that look at text."""


def path_matches(name: str, pattern: str) -> bool:
    """Whether a module path is, or begins with, or fits a pattern."""
    return name == pattern or name.startswith(pattern + ".") or fnmatchcase(name, pattern)
