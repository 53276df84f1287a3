"""Trains the bundled models: ``python -m attncontrol.sprites.training.train STAGE --work DIR
[--model sd3]``.

STAGE is vae, decoder, latents, diffusion or export, in this order; the first three are shared by
the models.

Every stage is deterministic by ``--seed``, writes a checkpoint every few hundred steps and resumes
from it.
"""

import argparse
from pathlib import Path

from attncontrol.sprites.training import flux, pixart, sd, sd3
from attncontrol.sprites.training.diffusion import export, train_diffusion
from attncontrol.sprites.training.latents import make_latents
from attncontrol.sprites.training.vae import train_decoder, train_vae

RECIPES = {module.RECIPE.name: module.RECIPE for module in (sd, sd3, flux, pixart)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["vae", "decoder", "latents", "diffusion", "export"])
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of checkpoints and latents"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--count", type=int, default=20_000, help="scenes to encode")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--start", type=Path, help="exported pipeline to go on from (diffusion)")
    parser.add_argument("--model", choices=list(RECIPES), default="sd")
    args = parser.parse_args()
    recipe = RECIPES[args.model]
    args.work.mkdir(parents=True, exist_ok=True)
    if args.stage == "vae":
        train_vae(args.work, seed=args.seed).save_pretrained(args.work / "vae")
    elif args.stage == "decoder":
        train_decoder(args.work, seed=args.seed).save_pretrained(args.work / "vae")
    elif args.stage == "latents":
        make_latents(args.work, seed=args.seed, count=args.count)
    elif args.stage == "diffusion":
        train_diffusion(
            recipe, args.work, seed=args.seed, steps=args.steps, lr=args.lr, start=args.start
        )
    else:
        export(recipe, args.work, Path(__file__).parents[1] / "weights" / recipe.name)


if __name__ == "__main__":
    main()
