"""How far and how often latents move: the step schedule shared by all test-time losses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from attncontrol.attention.moment import steps_in
from attncontrol.checks.arguments import Index, NotNegative, Number, Share, check_fields


def early(value: float = math.inf) -> Mapping[float, float]:
    """Thresholds ``value`` in every step of the first fifth of a run of up to 50 steps, where the
    layout of a picture is decided; infinity refines each time as often as ``max_refinements``
    allows."""
    return MappingProxyType({i / 50: value for i in range(10)})


@dataclass(frozen=True)
class Relative:
    """A step size that means the same on every model: the root mean square of the move of an image,
    in units of the input of the network, whose deviation is about 1.

    alpha_i = share * w * sqrt(linspace(1, final, N)[i]) / rms(grad L), over the latents of an
    image; no gradient, no move. w = min(1, 25 / steps): longer runs move as far in all.
    """

    share: NotNegative

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return f"{100 * self.share:g} %"


def shortened(total: int) -> float:
    """w of ``Relative`` in a run of ``total`` steps: measured, bench/README.md."""
    return min(1.0, _USUAL_STEPS / total)


USUAL = Relative(0.03)
"""Where no step of a paper fits: measured on the bundled models, bench/README.md."""
_USUAL_STEPS = 25  # with which it was measured
_EXCITED: Mapping[float, float] = MappingProxyType({0.0: 0.05, 0.2: 0.5, 0.4: 0.8})
_MOST = 20  # refinements, in the papers' codes


@dataclass(frozen=True)
class Descent:
    """Gradient descent on the latents of one image: x <- x - alpha_i grad L(x) at step i of N.

    alpha_i = step_size * sqrt(linspace(1, final, N)[i]). ``x`` is the input of the network; for
    variance-preserving schedulers (DDIM, PNDM, DPM++) that is the latents, for sigma-parametrised
    ones (Euler, LMS) this is a step of alpha (sigma^2 + 1) in the latents, which keeps published
    step sizes meaningful. ``step_size`` is that of the papers, which fits one model;
    ``Relative(0.03)`` moves every image equally far on all of them; None takes the papers' on
    Stable Diffusion 1 and 2, on all other models ``Relative(0.03)``.

    Updates happen in the first ``guided`` fraction of the steps. ``thresholds`` maps a fraction of
    the run to a value v: at that step each image is first refined until L <= 1 - v, by at most
    ``max_refinements`` steps of the same alpha_i. None is 20 of a paper's step and none of relative
    ones, for twenty such moves leave the range of a picture, and a few gained nothing.

    The defaults are those of Attend-and-Excite (25 of 50 steps, thresholds at steps 0, 10 and 20).

        with steer(pipe, SynGen(), descent=Descent(step_size=10.0, guided=0.4, thresholds={})):
            image = pipe("a red cat and a frog").images[0]
    """

    step_size: NotNegative | Relative | None = None
    final: NotNegative = 0.5
    guided: Share = 0.5
    thresholds: Mapping[Share, Number] = field(default_factory=lambda: _EXCITED)
    max_refinements: Index | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def alpha(self, index: int, total: int, step_size: float | Relative) -> float:
        """What a gradient is multiplied by, with a relative step one of unit root mean square."""
        progress = index / max(total - 1, 1)
        size = step_size
        if isinstance(size, Relative):
            size = size.share * shortened(total)
        return float(size * (1 + (self.final - 1) * progress) ** 0.5)

    def limit(self, step_size: float | Relative) -> int:
        """Most refinements of an image at a step."""
        if self.max_refinements is not None:
            return self.max_refinements
        return 0 if isinstance(step_size, Relative) else _MOST

    def updates(self, index: int, total: int) -> bool:
        return index < steps_in(self.guided, total)

    def target(self, index: int, total: int) -> float | None:
        """Loss to refine down to at this step, or None."""
        at = {
            min(steps_in(fraction, total), total - 1): 1 - value
            for fraction, value in self.thresholds.items()
        }
        return at.get(index)
