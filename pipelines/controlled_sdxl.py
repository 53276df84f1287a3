"""Edits of attention and test-time losses as a custom pipeline for Stable Diffusion XL.

    pipe = DiffusionPipeline.from_pretrained(
        MODEL, custom_pipeline="pipelines/controlled_sdxl.py", trust_remote_code=True
    )
    image = pipe("a red cat and a blue frog", objective="auto").images[0]
    cat, dog = pipe(["a cat and a car", "a dog and a car"], edit="p2p", generator=same_seeds).images

Everything else is ``StableDiffusionXLPipeline``; see ``attncontrol.edit`` and ``steer``.
"""

from diffusers import StableDiffusionXLPipeline

from attncontrol.batch.controlled import Controlled


class ControlledPipeline(Controlled, StableDiffusionXLPipeline):  # type: ignore[misc]
    """Its call takes ``edit``, ``objective``, ``words``, ``boxes``, ``where`` and ``descent``."""
