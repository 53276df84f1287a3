"""From attention to the identity, straight between the logarithms (HeadHunter, Ahn et al. 2025,
arXiv 2506.10978).

    A'_i ~ A_i^(1 - u) E_i^u,    E = (1 - epsilon) I + epsilon / N, as I has no logarithm

With a = A_ii of the map at the temperature 1 / (1 - u) and O = A V of it, the diagonal is enough:

    A' V = O + w (V_i - O),      w = g a / (1 + g a),    g = (E_ii / E_ij)^u - 1
"""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.edits.merge import diagonal, square


@dataclass(frozen=True)
class LogLinear(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run.

        with perturb(pipe, LogLinear(u=0.5), scale=3.0, where=Where(kind="self")):
            image = pipe(prompt).images[0]

    Raises SiteError in cross-attention.
    """

    u: float | Progress = 1.0
    epsilon: float = 1e-6

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        square(call)
        u = at(self.u, now.progress)
        tempered = call.tempered(1 - u)
        off = self.epsilon / call.key.shape[2]
        gain = ((1 - self.epsilon + off) / off) ** u - 1
        share = gain * diagonal(tempered)
        output = tempered.run()
        return output + (share / (1 + share)).to(output) * (call.value - output)
