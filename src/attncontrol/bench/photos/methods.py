"""Names of inversions and editors, and what they are.

Editors of true scenes are the methods of ``bench.edit_suite`` that have a source, those of a folder
the methods of ``attncontrol edit --method``; of both ``replace@0.4`` has a strength, ``p2p+auto``
steers the edited picture alone, and ``replace@curve`` stands for all strengths of its curve.
``none`` is the new prompt from the noise of the inversion. ``sdedit@0.6`` inverts nothing: noise is
added to the picture.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attncontrol import losses
from attncontrol.batch import edit_names
from attncontrol.batch.edit_methods import edits_of
from attncontrol.bench.edit_suite import methods as of_scenes
from attncontrol.bench.edit_suite.methods import Batch
from attncontrol.bench.photos.pairs import Pair
from attncontrol.errors import SettingError
from attncontrol.families import family_of
from attncontrol.inversion._schedule import is_flow

NONE, SDEDIT = "none", "sdedit"
DEFAULT_INVERSIONS = ("exact", "pnp-inversion", "ddim")
DEFAULT_EDITORS = (NONE, "replace", "p2p", "masactrl")
_CURVE = "@curve"
_CLASSES = {
    "exact": "Exact",
    "pnp-inversion": "PnPInversion",
    "ddim": "DDIMInversion",
    "fixed-point": "FixedPoint",
    "negative-prompt": "NegativePrompt",
    "null-text": "NullText",
    "rf-solver": "RFSolver",
    "fireflow": "FireFlow",
}
_GUIDED = ("negative-prompt", "null-text")
"""That change the unconditional branch."""


def inversion(name: str, call: Mapping[str, Any]) -> Any:
    """A value of ``attncontrol.inversion``; null texts are those of the guidance of ``call``."""
    from attncontrol import inversion as values

    scale = {"guidance_scale": call.get("guidance_scale", 7.5)} if name == "null-text" else {}
    return getattr(values, _CLASSES[name])(**scale)


def require_inversion(name: str, pipe: Any, call: Mapping[str, Any]) -> None:
    """Raises SettingError for an unknown one, and for one that this model cannot have."""
    if name == NONE:
        return
    if name not in _CLASSES:
        raise SettingError(f"{name!r}: choose from {', '.join(_CLASSES)}")
    if inversion(name, call).flow and not is_flow(pipe.scheduler):
        raise SettingError(
            f"{name!r} is for models of rectified flow, not for {type(pipe.scheduler).__name__}; "
            "leave it out"
        )
    apart = family_of(pipe).name == "flux"
    if name in _GUIDED and (apart or call.get("guidance_scale", 7.5) <= 1):
        raise SettingError(
            f"{name!r} is for models that look at both branches of classifier-free guidance at "
            f"once; {type(pipe).__name__} does not in this run, leave it out"
        )


def expanded(names: Sequence[str], *, scenes: bool) -> list[str]:
    """Names of editors with those of their curves, each once. Raises SettingError for unknown
    ones."""
    every: list[str] = []
    for name in names:
        if not name.endswith(_CURVE):
            every.append(name)
            continue
        part, *more = of_scenes.parts(f"{name.removesuffix(_CURVE)}@1")
        if more or not part[0].strengths:
            raise SettingError(f"{name!r}: a curve is that of one method, such as replace{_CURVE}")
        every += [name.replace("curve", f"{u:g}") for u in part[0].strengths]
    for name in every:
        _require(name, scenes)
    return list(dict.fromkeys(every))


def _require(name: str, scenes: bool) -> None:
    if name in of_scenes.WHOLE and name != SDEDIT:
        raise SettingError(f"{name!r}: the new prompt from the noise of a picture is {NONE!r}")
    if name != NONE and (scenes or inverts_nothing(name)):
        of_scenes.parts(name)
    elif name != NONE:
        edit_names.editing(name)


def inverts_nothing(editor: str) -> bool:
    return editor.partition("@")[0] == SDEDIT


def fits(editor: str, kind: str) -> bool:
    """Whether an editor does something for a kind of true scenes."""
    return editor == NONE or of_scenes.fits(editor, kind)


def changes(editor: str, pairs: Sequence[Pair], pipe: Any) -> list[Any]:
    """Edits, lists of ``On`` and objectives for a batch in which image 2 k is the picture of pair k
    and image 2 k + 1 is made of it; the outermost first. Raises SettingError."""
    if editor == NONE or inverts_nothing(editor):
        return []
    cases = [pair.case for pair in pairs if pair.case]
    if cases:
        return of_scenes.changes(editor, Batch(cases))
    sources = tuple(image - image % 2 for image in range(2 * len(pairs)))
    steers = [losses.method(edit_names.AUTO)] if edit_names.editing(editor)[1] else []
    return [*steers, edits_of(editor, sources, pipe)]
