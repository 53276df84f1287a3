"""A region for the picture of an IP-Adapter (Ye et al. 2023, arXiv 2308.06721) on FLUX.

    x + w Attn(Q, K_image, V_image)   ->   x + M w Attn(Q, K_image, V_image)

M is how much of each cell the region covers. That is what ``ip_adapter_masks`` are for, which
diffusers reads for Stable Diffusion and silently ignores for FLUX (0.42). FLUX adds up the outputs
of all its IP-Adapters before a mask can be applied: one region is for all of them.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, coverage, require_region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index
from attncontrol.edits.merge import is_chosen


@dataclass(frozen=True)
class AdapterRegion(Edit):
    """The picture given to an IP-Adapter changes ``region`` alone, a box (left, top, right, bottom)
    in 0 .. 1 or a mask [height width], of ``images`` (all if None).

        with edit(pipe, AdapterRegion((0.0, 0.0, 0.5, 1.0))):
            image = pipe("two friends", ip_adapter_image=portrait).images[0]

    Raises SettingError; SiteError for a model without IP-Adapter, or other than FLUX's;
    CouplingError for ``images`` that the pipeline does not make.
    """

    region: Region
    images: tuple[Index, ...] | None = None
    where = Where(kind="joint")
    modules = ("transformer_blocks.*.attn.processor.to_v_ip.0", "transformer_blocks.*.attn")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_region(self.region)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        now.notes(self)["grid"] = now.layout.grid
        return call

    def passed(self, name: str, inputs: Any, output: Any, now: Moment) -> Any:  # noqa: ARG002
        if not isinstance(output, tuple) or len(output) < 3:  # to_v_ip, or a call without a picture
            return output
        picture, text, of_adapter = output
        return picture, text, of_adapter * self._shares(of_adapter, now)

    def _shares(self, of_adapter: Tensor, now: Moment) -> Tensor:
        """[row cell 1]; cells of reference pictures after those of the picture keep theirs."""
        rows, cells, _ = of_adapter.shape
        shares = of_adapter.new_ones(rows, cells, 1)
        share = coverage(self.region, *now.notes(self)["grid"][-2:]).flatten().to(shares)
        for row in range(rows):
            if is_chosen(self.images, row, now):
                shares[row, : len(share), 0] = share
        return shares
