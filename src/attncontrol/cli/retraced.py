"""Maps of pictures over all steps of a run that makes them again: ``attncontrol maps --steps``."""

from typing import Annotated, Any

import typer

from attncontrol.cli import checks

Steps = Annotated[
    int | None,
    typer.Option(
        help="Invert each picture and record it in every step of a run of so many that makes it "
        "again, instead of once at --timestep.",
        min=1,
        max=1000,
    ),
]


def require_alone(steps: int | None, timestep: float | None, seed: int) -> None:
    """Raises typer.BadParameter for options of pictures that are looked at once."""
    given = {"timestep": timestep is not None, "seed": seed != 0}
    checks.effects(
        "--steps, whose noise is found", **{k: v and bool(steps) for k, v in given.items()}
    )


def recorded(
    pipe: Any, picture: Any, prompt: str, words: list[str] | None, steps: int, **options: Any
) -> Any:
    """As ``record_picture`` gives them, with the picture as the model was shown it; ``options`` are
    ``keep`` and what else goes to the pipeline. Without guidance, as it is inverted."""
    from attncontrol.verbs.invert import invert
    from attncontrol.verbs.record import record
    from attncontrol.verbs.retrace import retrace

    keep = options.pop("keep")
    trajectory = invert(pipe, picture, prompt, num_inference_steps=steps, **options)
    height, width = trajectory.size
    call = {"num_inference_steps": steps, "guidance_scale": 1.0, "height": height, "width": width}
    with retrace(pipe, trajectory), record(pipe, words, keep=keep) as maps:
        pipe(prompt, output_type="latent", **call, **options)
    return maps.replace(pictures=trajectory.pictures)
