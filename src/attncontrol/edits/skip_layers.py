"""Whole transformer blocks left out: skip-layer guidance (SLG; Stability AI's sd3.5 code, from
ComfyUI).

In the weakened pass block(x) = x for the picture and the text, attention and feed-forward alike.
What the model adds between its blocks (the residuals of a ControlNet) stays; diffusers' SD3
pipeline drops that of a skipped block. SD 3.5 medium was released with w = 2.5, layers 7, 8, 9 and
steps=(0.01, 0.2).
"""

from dataclasses import dataclass
from typing import Annotated

from attncontrol.checks.arguments import Such, check_fields


@dataclass(frozen=True)
class SkipLayers:
    """For ``perturb``: the module paths of blocks, such as ``"transformer_blocks.7"``.

    with perturb(pipe, SkipLayers(("transformer_blocks.7",)), scale=2.5, steps=(0.01, 0.2)):
        image = pipe(prompt).images[0]
    """

    layers: Annotated[tuple[str, ...], Such("paths such as ('transformer_blocks.7',)", bool)]

    def __post_init__(self) -> None:
        check_fields(self)
