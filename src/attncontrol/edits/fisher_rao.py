"""From attention to the identity on the geodesic of the Fisher-Rao metric (HeadHunter, Ahn et al.
2025, arXiv 2506.10978).

    sqrt(A'_i) = (sin((1 - u) t) sqrt(A_i) + sin(u t) e_i) / sin t,    cos t = sqrt(A_ii)

With a = A_ii and O = A V, the diagonal is enough:

    A' V = c^2 (O - a V_i) + (d + c sqrt(a))^2 V_i,
    c = sin((1 - u) t) / sin t,    d = sin(u t) / sin t

HeadHunter's "fisher_rao" is a straight line between sqrt(A) and I, its "fisher_rao_slerp" this one.
"""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.checks.arguments import Share
from attncontrol.edits.merge import diagonal, square


@dataclass(frozen=True)
class FisherRao(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run.

        with perturb(pipe, FisherRao(u=0.5), scale=3.0, where=Where(kind="self")):
            image = pipe(prompt).images[0]

    Raises SiteError in cross-attention.
    """

    u: Share | Progress = 1.0

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        square(call)
        u = at(self.u, now.progress)
        own = diagonal(call).clamp(0, 1)
        angle = own.sqrt().acos().clamp(min=1e-6)
        kept, added = ((1 - u) * angle).sin() / angle.sin(), (u * angle).sin() / angle.sin()
        rest, self_ = kept**2, (added + kept * own.sqrt()) ** 2
        output = call.run()
        return (
            rest.to(output) * (output - own.to(output) * call.value) + self_.to(output) * call.value
        )
