"""Trains the bundled models: ``python -m attncontrol.sprites.training.train STAGE --work DIR``.

STAGE is sd3, flux or pixart: scenes, training and export of a transformer in one go, on
``--device``, for ``--steps`` or ``--seconds``; the pipeline is then in DIR. Or it is a stage of the
autoencoder and the UNet, on a CPU: vae, decoder, latents, diffusion or export, in this order; every
one of these writes a checkpoint every few hundred steps and resumes from it.

Scenes and the draws of a CPU are the same for the same ``--seed``.
"""

import argparse
from pathlib import Path
from typing import Any

from attncontrol.sprites.models import path
from attncontrol.sprites.training import flux, pixart, sd, sd3
from attncontrol.sprites.training.diffusion import export, train_diffusion
from attncontrol.sprites.training.latents import make_latents
from attncontrol.sprites.training.transformer import train_transformer
from attncontrol.sprites.training.vae import train_decoder, train_vae

TRANSFORMERS = {module.RECIPE.name: module.RECIPE for module in (sd3, flux, pixart)}


def parser() -> argparse.ArgumentParser:
    """What is not given is absent: the defaults are those of the functions."""
    absent = argparse.SUPPRESS
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--work", type=Path, required=True, help="folder of all that is made")
    common.add_argument("--seed", type=int, default=0)
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = made.add_subparsers(dest="stage", required=True)
    of = {
        name: stages.add_parser(name, parents=[common], argument_default=absent)
        for name in ("vae", "decoder", "latents", "diffusion", "export", *TRANSFORMERS)
    }
    for name in ("latents", *TRANSFORMERS):
        of[name].add_argument("--count", type=int, help="scenes to encode")
    for name in ("diffusion", *TRANSFORMERS):
        of[name].add_argument("--steps", type=int)
        of[name].add_argument("--lr", type=float, help="peak rate")
        of[name].add_argument("--start", type=pipeline_folder, help="a bundled model or a folder")
    for name in TRANSFORMERS:
        of[name].add_argument("--device", help="cpu or cuda")
        of[name].add_argument("--batch", type=int)
        of[name].add_argument("--seconds", type=float, help="of training, instead of steps")
    return made


def pipeline_folder(start: str) -> Path:
    return Path(start) if Path(start).is_dir() else Path(path(start))


def main() -> None:
    options: dict[str, Any] = vars(parser().parse_args())
    stage, work, seed = (options.pop(name) for name in ("stage", "work", "seed"))
    work.mkdir(parents=True, exist_ok=True)
    if stage == "vae":
        train_vae(work, seed=seed).save_pretrained(work / "vae")
    elif stage == "decoder":
        train_decoder(work, seed=seed).save_pretrained(work / "vae")
    elif stage == "latents":
        make_latents(work, seed=seed, **options)
    elif stage == "diffusion":
        train_diffusion(sd.RECIPE, work, seed=seed, **options)
    elif stage == "export":
        export(sd.RECIPE, work, Path(__file__).parents[1] / "weights" / sd.RECIPE.name)
    else:
        train_transformer(TRANSFORMERS[stage], work, seed=seed, **options)


if __name__ == "__main__":
    main()
