"""``--photo`` of ``attncontrol edit`` and ``record``, ``--mask`` of ``edit``."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
        help="A picture file that PROMPT describes, instead of a generated one.",
        callback=paths.existing,
        parser=paths.named,
        metavar="FILE",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="A picture file of the size of --photo, or of generated pictures: white where the "
        "edited picture may change, black where it stays as it is.",
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


def asked(ctx: typer.Context, given: Any) -> tuple[dict[str, Any], list[int]]:
    """The settings of the photo and of the mask, if they are given, and the seeds. Raises
    typer.BadParameter for what is no picture, and for options that do nothing."""
    of_photo, seeds = _asked_photo(ctx, given)
    return of_photo | _asked_mask(given), seeds


def _asked_mask(given: Any) -> dict[str, Any]:
    if given.mask is None:
        return {}
    mask = _read(given.mask, "--mask")
    if given.photo is not None:
        size = _read(given.photo, "--photo").size
        if mask.size != size:
            shown, own = (" x ".join(map(str, each)) for each in (mask.size, size))
            raise typer.BadParameter(
                f"it has {shown} pixels, the photo {own}: paint it on the photo",
                param_hint="--mask",
            )
    from attncontrol.batch.settings import PictureFile

    return {"mask": PictureFile(**_told(given.mask))}


def _asked_photo(ctx: typer.Context, given: Any) -> tuple[dict[str, Any], list[int]]:
    if given.photo is None:
        checks.effects("generated pictures, only with --photo", inversion=bool(given.inversion))
        return {}, checks.seeds(given.seeds)
    source = ctx.get_parameter_source("seeds")
    seeded = source is not None and source.name == "COMMANDLINE"
    if not (seeded and _adds(given)):
        checks.effects("--photo, whose noise is found", seeds=seeded)
    if given.region:
        raise typer.BadParameter(
            "regions take nothing from the picture, so it would be lost outside of them: say with "
            "--to what it shall show instead",
            param_hint="--region",
        )
    of_photo = {"photo": photograph(given.photo, given.inversion)}
    return of_photo, checks.seeds(given.seeds) if seeded else [0]


def _adds(given: Any) -> bool:
    """Whether something new is to come into a mask, whose noise is that of a seed."""
    if given.mask is None or not given.to:
        return False

    from attncontrol.prompts.difference import difference  # slow to import

    return difference(given.prompt, given.to).kind == "add"


def photograph(file: Path, by: str | None) -> Any:
    """Raises typer.BadParameter for what is no picture."""
    _read(file, "--photo")

    from attncontrol.batch.settings import Photograph

    return Photograph(**_told(file), inversion=by or "exact")


def _told(file: Path) -> dict[str, str]:
    from attncontrol.batch.runs import digest_of  # slow to import

    return {"file": str(file), "sha256": digest_of(file) or ""}


def require_same(settings: Any) -> None:
    """Raises ResultsError unless the pictures that an earlier run was given are there, as they
    were."""
    from attncontrol.batch.runs import digest_of

    for picture in filter(None, (settings.photo, settings.mask)):
        file = Path(picture.file)
        if not file.is_file():
            raise ResultsError(f"the picture {file} is not there; put it back, or run where it is")
        if digest_of(file) != picture.sha256:
            raise ResultsError(f"the picture {file} is not that of the run: its bytes have changed")
    if settings.photo:
        require_known(settings.photo.inversion)


def prepared(pipe: Any) -> Any:
    """With a scheduler that can be inverted; says so if it is another one."""
    if before := invertible(pipe):
        told = f"{before} cannot be inverted: DDIM's scheduler, for the photo and its edit"
        console.print(told, soft_wrap=True)
    return pipe


def required(pipe: Any, settings: Any) -> tuple[Any, Any]:
    """The photo of a run and its mask, each None if there is none. Raises AttnControlError where
    the photo cannot be inverted, and for a mask that does not fit."""
    from attncontrol.batch.edit_masks import mask_of

    picture, mask = picture_of(pipe, settings) if settings.photo else None, None
    if settings.mask:
        mask = mask_of(pipe, settings, _opened(Path(settings.mask.file)))
    return picture, mask


def picture_of(pipe: Any, described: Any) -> Any:
    """Raises AttnControlError where the photo cannot be inverted."""
    from attncontrol.batch.edit_photos import require_photo

    picture = _opened(Path(described.photo.file))
    require_photo(pipe, described, picture)
    return picture


def trajectory(pipe: Any, settings: Any, picture: Any, out: Path) -> Any:
    """Kept beside the folder ``out``."""
    from attncontrol.batch.edit_photos import trajectory_of

    return trajectory_of(pipe, settings, picture, out.absolute().parent)


def start(pipe: Any, settings: Any, picture: Any, out: Path) -> Any:
    """The same, with what edits take of the photo where they do not need it beside them."""
    from attncontrol.batch.edit_sources import kept_or_not

    return kept_or_not(pipe, settings, picture, out.absolute().parent)


def _read(path: Path, option: str) -> Any:
    """Upright, as it will be used. Raises typer.BadParameter for what is no picture."""
    from attncontrol.verbs.photo import read

    try:
        return read(_opened(path))
    except AttnControlError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _opened(path: Path) -> Any:
    if path.is_dir():
        raise SettingError(f"{path} is a folder; give one picture file")
    return pictures.opened(path, _LARGEST, f"the {_LARGEST:g} that are read")
