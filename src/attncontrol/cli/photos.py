"""``--photo`` of ``attncontrol edit``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.batch.edit_names import AUTO
from attncontrol.batch.inversions import CLASSES, invertible, require_known
from attncontrol.cli import checks, paths, pictures
from attncontrol.cli.app import console
from attncontrol.errors import AttnControlError, ResultsError, SettingError

_LARGEST = 100.0  # million pixels


def _inversion(name: str | None) -> str | None:
    try:
        if name is not None:
            require_known(name)
    except SettingError as error:
        raise typer.BadParameter(str(error)) from error
    return name


Photo = Annotated[
    Path | None,
    typer.Option(
        help="A picture file that PROMPT describes, to be edited instead of a generated one.",
        callback=paths.existing,
        parser=paths.named,
        metavar="FILE",
    ),
]
Inversion = Annotated[
    str | None,
    typer.Option(
        help=f"How the noise of --photo is found: {', '.join(CLASSES)}. Default: exact, by which "
        "it comes back as the autoencoder shows it.",
        callback=_inversion,
        autocompletion=lambda: [*CLASSES],
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="A picture as large as that of --photo, white where it may change.",
        callback=paths.existing,
        parser=paths.named,
        metavar="FILE",
    ),
]


def asked(ctx: typer.Context, given: Any) -> tuple[dict[str, Any], list[int]]:
    """The settings of the photo, if one is given, and the seeds. Raises typer.BadParameter for what
    is no picture, and for options that do nothing."""
    if given.photo is None:
        idle = {"inversion": bool(given.inversion), "mask": given.mask is not None}
        checks.effects("generated pictures, only with --photo", **idle)
        return {}, checks.seeds(given.seeds)
    source = ctx.get_parameter_source("seeds")
    seeded = source is not None and source.name == "COMMANDLINE"
    checks.effects("--photo, whose noise is found", seeds=seeded)
    if given.region:
        raise typer.BadParameter(
            "regions take nothing from the picture, so it would be lost outside of them: say with "
            "--to what it shall show instead",
            param_hint="--region",
        )
    if given.method and given.method.endswith(f"+{AUTO}"):
        raise typer.BadParameter(
            f"{AUTO} steers the source too, which would be the photo no more: give "
            f"{given.method.removesuffix('+' + AUTO)} alone",
            param_hint="--method",
        )
    return {"photo": _photograph(given)}, [0]


def _photograph(given: Any) -> Any:
    """Raises typer.BadParameter for what is no picture, and for a mask that does not fit."""
    try:
        picture = _opened(given.photo)
    except AttnControlError as error:
        raise typer.BadParameter(str(error), param_hint="--photo") from error

    from attncontrol.batch.edit_photos import require_mask  # slow to import
    from attncontrol.batch.runs import digest_of
    from attncontrol.batch.settings import Photograph

    by = {"inversion": given.inversion or "exact"}
    if given.mask is not None:
        try:
            require_mask(picture, _opened(given.mask), str(given.mask))
        except AttnControlError as error:
            raise typer.BadParameter(str(error), param_hint="--mask") from error
        by |= {"mask": str(given.mask), "mask_sha256": digest_of(given.mask) or ""}
    return Photograph(file=str(given.photo), sha256=digest_of(given.photo) or "", **by)


def require_same(photo: Any) -> None:
    """Raises ResultsError unless the picture of an earlier run and its mask are there, as they
    were."""
    from attncontrol.batch.runs import digest_of

    for name, mark in ((photo.file, photo.sha256), (photo.mask, photo.mask_sha256)):
        if name is None:
            continue
        if not Path(name).is_file():
            raise ResultsError(f"the picture {name} is not there; put it back, or run where it is")
        if digest_of(Path(name)) != mark:
            raise ResultsError(f"the picture {name} is not that of the run: its bytes have changed")
    require_known(photo.inversion)


def prepared(pipe: Any) -> Any:
    """With a scheduler that can be inverted; says so if it is another one."""
    if before := invertible(pipe):
        told = f"{before} cannot be inverted: DDIM's scheduler, for the photo and its edit"
        console.print(told, soft_wrap=True)
    return pipe


def required(pipe: Any, settings: Any) -> Any:
    """The photo of a run. Raises AttnControlError where it cannot be inverted."""
    from attncontrol.batch.edit_photos import require_photo

    picture = _opened(Path(settings.photo.file))
    require_photo(pipe, settings, picture)
    return picture


def trajectory(pipe: Any, settings: Any, picture: Any, out: Path) -> Any:
    """Kept beside the folder ``out``."""
    from attncontrol.batch.edit_photos import trajectory_of

    return trajectory_of(pipe, settings, picture, out.absolute().parent)


def _opened(path: Path) -> Any:
    if path.is_dir():
        raise SettingError(f"{path} is a folder; give one picture file")
    return pictures.opened(path, _LARGEST, f"the {_LARGEST:g} that are read")
