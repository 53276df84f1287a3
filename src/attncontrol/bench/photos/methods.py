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
from attncontrol.batch import edit_names, inversions
from attncontrol.batch.edit_methods import edits_of
from attncontrol.bench.edit_suite import methods as of_scenes
from attncontrol.bench.edit_suite.methods import Batch
from attncontrol.bench.edit_suite.possible import require_image_to_image, require_opened
from attncontrol.bench.photos.pairs import Pair
from attncontrol.errors import SettingError

NONE, SDEDIT = "none", "sdedit"
DEFAULT_EDITORS = (NONE, "replace", "p2p", "masactrl")
_CURVE = "@curve"


def require_inversion(name: str, pipe: Any, call: Mapping[str, Any]) -> None:
    """Raises SettingError for an unknown one, and for one that this model cannot have."""
    if name != NONE:
        inversions.require_inversion(name, pipe, call)


def require_editor(name: str, pipe: Any, pairs: Sequence[Pair]) -> None:
    """Raises SettingError for one that this model cannot have."""
    if inverts_nothing(name):
        require_image_to_image(pipe, name)
    elif name != NONE:
        require_opened(pipe, name, changes(name, pairs[:1], pipe))


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
