"""Whether the step size of a test-time loss fits, from what a plain and a guided run have shown.

    peak    largest move of the latents in a step, rms in units of the input of the network; in runs
            of more than 25 steps as many times larger as they have more
    fell    mean of the losses lies below that of the plain run of the same seed, over all steps of
            the guidance but the first, which are equal in both
    left    the guided picture lies outside of the range of the plain ones by more than ``FACTOR``
            in one of the numbers of ``Appearance``

    too much       peak > MOST, or left and peak >= LEAST
    does nothing   not that, and not fell
    too little     fell, and peak < LEAST
    fits           all else

Of several seeds together: the mean of their peaks and of their falls, and left if more than half
have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from attncontrol.batch.appearance import Appearance
from attncontrol.objectives.descent import USUAL, Relative

Verdict = Literal["does nothing", "too little", "fits", "too much"]
LEAST, MOST = 0.01, 0.18
"""Where the gain of auto begins and ends, on 92 prompts of each bundled model: colours are bound in
48 and 50 % with moves of 0.3 % (plain 20 and 28), 74 to 88 with 1 %, 78 to 92 with 3 %, on the UNet
and FLUX in 55 and 72 % with 18 %, in 22 and 70 with 30 %, where pictures fall apart."""
FACTOR = 2.0
"""Of 57 guided pictures none left the plain range so far at a step of 6 %, 27 did at 60 %."""


@dataclass(frozen=True)
class SeedCheck:
    """What one seed has shown. ``moves``, ``refinements`` and ``losses`` are per step of the
    guidance, ``moves`` as ``peak`` has them, without the first if that has a search of the noise;
    ``plain_losses`` are those of the plain run; ``left`` names numbers of ``appearance`` that lie
    outside of those of the plain pictures of all seeds."""

    seed: int
    moves: tuple[float, ...]
    refinements: tuple[int, ...]
    losses: tuple[float, ...]
    plain_losses: tuple[float, ...]
    appearance: Appearance
    plain_appearance: Appearance
    left: tuple[str, ...]

    @property
    def peak(self) -> float:
        return max(self.moves, default=0.0)

    @property
    def fall(self) -> float | None:
        """How far the losses lie below those of the plain run, mean over the steps after the
        first; None without any."""
        pairs = zip(self.plain_losses[1:], self.losses[1:], strict=True)
        falls = [plain - guided for plain, guided in pairs]
        return fmean(falls) if falls else None

    @property
    def verdict(self) -> Verdict:
        return _verdict(self.peak, self.fall, bool(self.left))


def _verdict(peak: float, fall: float | None, left: bool) -> Verdict:
    if peak > MOST or (left and peak >= LEAST):
        return "too much"
    if peak == 0 or (fall is not None and fall <= 0):
        return "does nothing"
    return "too little" if peak < LEAST else "fits"


def together(seeds: Sequence[SeedCheck]) -> Verdict:
    """Of all seeds."""
    falls = [seed.fall for seed in seeds if seed.fall is not None]
    left = sum(bool(seed.left) for seed in seeds) > len(seeds) / 2
    return _verdict(_peak(seeds), fmean(falls) if falls else None, left)


def _peak(seeds: Sequence[SeedCheck]) -> float:
    return fmean(seed.peak for seed in seeds)


def remedy(seeds: Sequence[SeedCheck], size: float | Relative) -> str:
    """What to change, in options of the command line, and in Python where it has none; empty for a
    setting that fits."""
    verdict, peak = together(seeds), _peak(seeds)
    if verdict == "fits":
        return ""
    if not any(seed.moves for seed in seeds):
        return "the method has nothing to do in this prompt: another --method, or --words"
    if peak == 0 and size not in (0.0, Relative(0.0)):
        return "the loss has no gradient in this prompt: another --method, or --words"
    refined = any(any(seed.refinements) for seed in seeds)
    halved = verdict == "too much" and peak <= USUAL.share
    better = f"--step-size {_better(size, peak, refined, halved)}"
    if verdict == "too much" and refined:
        return f"{better}, or in Python fewer refinements, Descent(max_refinements=...)"
    if halved:
        return f"{better}, or in Python fewer steps of guidance, Descent(guided=...)"
    if verdict == "does nothing" and peak >= USUAL.share / 2:
        return "the losses do not follow: another --method, or in Python other layers, where=..."
    return better


def _better(size: float | Relative, peak: float, refined: bool, halved: bool) -> str:
    """A step size for the command line: half of this one; the usual one; or, where the peak is that
    of several moves in a step, that by which it becomes the usual move."""
    if not peak or not (refined or halved):
        return _written(USUAL)
    factor = 0.5 if halved else USUAL.share / peak
    return _written(Relative(size.share * factor) if isinstance(size, Relative) else size * factor)


def _written(size: float | Relative) -> str:
    """With two digits."""
    value = 100 * size.share if isinstance(size, Relative) else size
    return f"{float(f'{value:.2g}'):g}{'%' if isinstance(size, Relative) else ''}"
