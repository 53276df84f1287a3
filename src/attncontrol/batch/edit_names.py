"""How methods of editing are named: "p2p", with a strength "p2p@0.5", several "layout+blend". Known
without torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from attncontrol.errors import SettingError

USUAL: Mapping[str, float] = MappingProxyType(
    {
        "p2p": 0.8,
        "replace": 0.8,
        "blend": 0.2,
        "masactrl": 0.08,
        "style": 1.0,
        "layout": 0.3,
        "contents": 0.3,
        "pnp": 0.8,
    }
)
"""Methods that take attention from a source, with the strength that they have unless told: the
share of the run in which they act, for masactrl and blend that from which on, for style the scale
of the source's keys."""
AUTO = "auto"
"""Beside others the objective that ``generate --method auto`` steers by; alone, on the command
line, the choice of ``edit_choice``."""


class Part(NamedTuple):
    """``strength`` is None unless it was told."""

    name: str
    strength: float | None


def parts(name: str, known: Mapping[str, bool]) -> list[Part]:
    """Those of a name in their order; ``known`` says of every method whether it has a strength.
    Raises SettingError."""
    found = []
    for part in name.split("+"):
        method, at, strength = part.partition("@")
        told = repr(part) if part == name else f"{part!r} in {name!r}"
        if method not in known:
            raise SettingError(f"{told}: choose from {', '.join(known)}")
        if at and not known[method]:
            raise SettingError(f"{told}: {method} has no strength")
        try:
            found.append(Part(method, float(strength) if at else None))
        except ValueError:
            raise SettingError(f"{told}: write its strength as {method}@0.4") from None
    return found


def editing(name: str) -> tuple[list[Part], bool]:
    """The methods of a name with their strengths, and whether ``auto`` steers beside them. Raises
    SettingError, also for a strength out of 0 .. 1."""
    found = parts(name, dict.fromkeys(USUAL, True) | {AUTO: False})
    if wrong := [part for part in found if not 0 <= (part.strength or 0) <= 1]:
        raise SettingError(
            f"{name!r}: a strength is a share between 0 and 1, such as {wrong[0].name}@0.5"
        )
    edits = [part for part in found if part.name != AUTO]
    if not edits or len(found) - len(edits) > 1:
        raise SettingError(f"{name!r}: {AUTO} stands once beside a method, such as p2p+{AUTO}")
    return edits, len(edits) < len(found)


def changes_nothing(method: str, prompt: str, to: str) -> bool:
    """From the same noise the same prompt gives the same picture, and what is taken from that is
    what is there; but for keys of the style at another scale."""
    styles = [part for part in editing(method)[0] if part.name == "style"]
    scaled = any(part.strength not in (None, USUAL["style"]) for part in styles)
    return prompt.split() == to.split() and not scaled


def weaker_and_stronger(method: str) -> list[str]:
    """The same method at half and at twice its strength, at most 1; none of a sum of several."""
    found, steered = editing(method)
    if len(found) > 1:
        return []
    name, told = found[0]
    usual = USUAL[name] if told is None else told
    others = {f"{share:.3g}" for share in (usual / 2, min(1.0, usual * 2))} - {f"{usual:.3g}"}
    beside = f"+{AUTO}" if steered else ""
    return [f"{name}@{share}{beside}" for share in sorted(others, key=float)]
