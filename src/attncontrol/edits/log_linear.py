"""From attention to the identity, straight between the logarithms (HeadHunter, Ahn et al. 2025,
arXiv 2506.10978).

    A'_i ~ A_i^(1 - u) E_i^u

    E_ij = epsilon, E_ii = 1 - (N - 2) epsilon: I has no logarithm; u = 1 is I itself

With a = A_ii of the map at the temperature 1 / (1 - u) and O = A V of it, the diagonal is enough:

    A' V = O + w (V_i - O),      w = g a / (1 + g a),    g = (E_ii / E_ij)^u - 1

N: number of keys. E as in the official code, which also raises values of A below 1e-12 to it.
"""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.checks.arguments import Share
from attncontrol.edits.merge import diagonal, square


@dataclass(frozen=True)
class LogLinear(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run; ``epsilon`` above 0 and
    below 1 / N.

        with perturb(pipe, LogLinear(u=0.5), scale=3.0, where=Where(kind="self")):
            image = pipe(prompt).images[0]

    Raises SiteError in cross-attention.
    """

    u: Share | Progress = 1.0
    epsilon: float = 1e-6

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        square(call)
        u = at(self.u, now.progress)
        if u == 1:
            return call.value
        tempered = call.tempered(1 - u)
        own = 1 - (call.key.shape[2] - 2) * self.epsilon
        share = ((own / self.epsilon) ** u - 1) * diagonal(tempered)
        output = tempered.run()
        return output + (share / (1 + share)).to(output) * (call.value - output)
