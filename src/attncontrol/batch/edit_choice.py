"""``attncontrol edit --method auto``: the method that was best for a kind of change."""

from dataclasses import dataclass
from typing import Any

from attncontrol.batch.edit_names import AUTO
from attncontrol.errors import SettingError
from attncontrol.families.family import Family
from attncontrol.prompts.difference import difference


@dataclass(frozen=True)
class Choice:
    """For a ``kind`` of change on models with "joint" or with "cross"-attention, or on "any".
    Figures are those of bench/README.md, "Edits with a source": of pictures of the bundled models
    in which what changes is shown and the rest kept."""

    kind: str
    on: str
    method: str
    why: str


CHOICES = (
    Choice("recolour", "cross", "p2p@0.6+auto", "right in 85 % on the UNet, p2p alone in 72"),
    Choice("swap", "cross", "p2p+auto", "right in 87 % on the UNet, p2p alone in 77"),
    Choice("add", "cross", "blend@0.3+auto", "right in 66 % on the UNet, the same seed in 13"),
    Choice("remove", "cross", "p2p", "right in 91 % on the UNet, with auto in 92 at more cost"),
    Choice("recolour", "joint", "p2p@0.6+auto", "right in 48 % on SD3, 62 on FLUX, p2p in 42, 44"),
    Choice("swap", "joint", "p2p@0.6+auto", "right in 73 % on SD3, 77 on FLUX, p2p in 67, 54"),
    Choice("add", "joint", "blend@0.3+auto", "right in 50 % on FLUX, the same seed in 6"),
    Choice("remove", "joint", "p2p", "right in 90 % on SD3, 83 on FLUX, same seed in 2, 10"),
    Choice("restyle", "any", "replace", "the layout stays, colours may change; not measured"),
    Choice("other", "any", "p2p", "not measured"),
)
PHOTOS = (
    Choice("recolour", "cross", "p2p", "right in 89 % on the UNet"),
    Choice("swap", "cross", "p2p", "right in 81 % on the UNet"),
    Choice("recolour", "joint", "p2p@0.6+auto", "right in 64 % on SD3, p2p in 46"),
    Choice("swap", "joint", "p2p@0.6+auto", "right in 75 % on SD3, p2p in 61"),
    Choice("add", "any", "blend@0.3+auto", "nothing was added to 48 photos; paint a --mask"),
)
MASKED = (
    Choice("recolour", "joint", "replace@0.6+auto", "right in 70 % on SD3, p2p without in 46"),
    Choice("swap", "joint", "replace@0.6+auto", "right in 73 % on SD3 and FLUX, p2p in 61, 49"),
    Choice("add", "any", "blend+auto", "new noise in the mask; right in 56 to 79 % on four models"),
)
"""What is better than these for photos ("Photos" in bench/README.md), and for those with a mask."""
STEERS = f"{AUTO} also steers the source, by gradients, at 1.4 times the time"
STEERS_EDIT = f"{AUTO} steers the edited picture, by gradients, at 1.4 times the time"


def chosen(
    before: str, after: str, pipe: Any, family: Family, *, photo: bool = False, mask: bool = False
) -> tuple[str, str]:
    """The name of a method for an edit from one prompt to another, and why it is this one, in a
    line. The source may be a ``photo``, which nothing steers, with a ``mask``. Raises SettingError
    if the prompts are the same."""
    found = difference(before, after)
    if found.kind == "none":
        raise SettingError(
            f"both prompts say {before!r}: there is nothing that {AUTO} could choose a method for"
        )
    sites = family.sites(family.denoiser(pipe))
    form = "joint" if any(site.kind == "joint" for site in sites) else "cross"
    better = (MASKED if photo and mask else ()) + (PHOTOS if photo else ())
    choice = next(
        each for each in better + CHOICES if each.kind == found.kind and each.on in (form, "any")
    )
    method, why = choice.method, choice.why
    if f"+{AUTO}" in method:
        if isinstance(family.steering, str):
            method, why = method.removesuffix(f"+{AUTO}"), f"cannot be steered: {family.steering}"
        else:
            why = f"{why}; {STEERS_EDIT if photo else STEERS}"
    return method, f"{found.kind} ({found.words}) by {method}: {why}"
