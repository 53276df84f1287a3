"""Edits of attention and test-time losses as a custom pipeline for Stable Diffusion 3 and 3.5.

    pipe = DiffusionPipeline.from_pretrained(
        MODEL, custom_pipeline="pipelines/controlled_sd3.py", trust_remote_code=True
    )
    image = pipe("a red cat and a blue frog", objective="auto").images[0]
    cat, dog = pipe(["a cat and a car", "a dog and a car"], edit="p2p", generator=same_seeds).images

Everything else is ``StableDiffusion3Pipeline``; see ``attncontrol.edit`` and ``steer``.
"""

from diffusers import StableDiffusion3Pipeline

from attncontrol.batch.controlled import Controlled


class ControlledPipeline(Controlled, StableDiffusion3Pipeline):  # type: ignore[misc]
    """Its call takes ``edit``, ``objective``, ``words``, ``boxes``, ``where`` and ``descent``."""
