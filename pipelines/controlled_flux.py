"""Edits of attention and test-time losses as a custom pipeline for FLUX.1.

    pipe = DiffusionPipeline.from_pretrained(
        MODEL, custom_pipeline="pipelines/controlled_flux.py", trust_remote_code=True
    )
    image = pipe("a red cat and a blue frog", objective="auto").images[0]
    cat, dog = pipe(["a cat and a car", "a dog and a car"], edit="p2p", generator=same_seeds).images

Everything else is ``FluxPipeline``; see ``attncontrol.edit`` and ``steer``.
"""

from diffusers import FluxPipeline

from attncontrol.batch.controlled import Controlled


class ControlledPipeline(Controlled, FluxPipeline):  # type: ignore[misc]
    """Its call takes ``edit``, ``objective``, ``words``, ``boxes``, ``where`` and ``descent``."""
