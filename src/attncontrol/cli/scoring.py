"""Options of scores, for ``report`` and ``bench``."""

from typing import Annotated, Any

import typer

from attncontrol.errors import SettingError
from attncontrol.scores.names import ABOUT, SPRITES, Models, require_scores


def _scores(names: list[str] | None) -> list[str] | None:
    try:
        require_scores(names or [], [])
    except SettingError as error:
        raise typer.BadParameter(str(error)) from error
    return names


def _model(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("the name is empty; give a local folder or a hub id")
    return text


def _option(flag: str, about: str) -> Any:
    return typer.Option(flag, help=f"{about}, a local folder or a hub id.", callback=_model)


DEFAULT = Models()
Clip = Annotated[str, _option("--clip-model", "CLIP")]
Captions = Annotated[str, _option("--caption-model", "BLIP for captions")]
Questions = Annotated[str, _option("--vqa-model", "BLIP for questions")]
Detector = Annotated[
    str, _option("--detector", "OWL-ViT or a detector of a fixed list, such as DETR")
]
Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--score",
        help=f"Repeated: {', '.join(ABOUT)}, or your own, module:function, which is called with "
        f"pictures and items. Default: {', '.join(SPRITES)} for the bundled models.",
        callback=_scores,
    ),
]
