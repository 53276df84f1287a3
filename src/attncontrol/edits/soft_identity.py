"""Every position looks at itself: perturbed-attention guidance (PAG) and SoftPAG.

    A'  = (1 - u) A + u I,      so the output is   (1 - u) A V + u V

u = 1 is PAG (Ahn et al. 2024, arXiv 2403.17377), smaller u SoftPAG (Ahn et al. 2025, arXiv
2506.10978).

In joint attention ``scope="all"`` is this for the whole map, text rows included, as in HeadHunter's
code. ``scope="picture"`` is that of diffusers' PAG for SD3: a cell of the picture sees itself and
the text, never another cell, and text rows are unchanged. With the logit s_ii of a cell with itself
and t_i = log sum over text of exp(s_ij)

    A'V_i = w_i V_i + (1 - w_i) softmax(s_i,text) V_text,      w_i = 1 / (1 + exp(t_i - s_ii))

which needs cells x text values instead of cells x cells.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.checks.arguments import Share
from attncontrol.edits.merge import lerp, square
from attncontrol.errors import CallError


def among_picture(call: AttentionCall, layout: Layout) -> Tensor:
    """The output with the picture's own block of A replaced by its diagonal, text rows
    untouched."""
    image = layout.image
    if not isinstance(image, slice) or call.mask is not None:
        raise CallError(
            f"{call.site.name} masks text, or has text of different lengths in its rows: use "
            "scope='all'"
        )
    part = call.replace(
        query=call.query[:, :, image],
        key=call.key[:, :, layout.text],
        value=call.value[:, :, layout.text],
    )
    own = (call.query[:, :, image] * call.key[:, :, image]).sum(-1) * call.factor
    text = (part.query * call.factor) @ part.key.transpose(-1, -2)
    weight = (own - text.logsumexp(-1)).sigmoid()[..., None]
    output = call.run().clone()
    output[:, :, image] = weight * call.value[:, :, image] + (1 - weight) * (
        text.softmax(-1) @ part.value
    )
    return output


@dataclass(frozen=True)
class SoftIdentity(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run.

        with perturb(pipe, SoftIdentity(u=0.5), scale=2.0, where=Where(kind="self")):
            image = pipe(prompt).images[0]

    Raises SiteError in cross-attention; CallError.
    """

    u: Share | Progress = 1.0
    scope: Literal["all", "picture"] = "all"

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        square(call)
        u, layout = at(self.u, now.progress), now.layout
        if self.scope == "picture" and layout.text != slice(0) and call.site.kind == "joint":
            return lerp(call.run, lambda: among_picture(call, layout), u)
        return lerp(call.run, lambda: call.value, u)
