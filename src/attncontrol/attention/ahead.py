"""The same moment in the other steps of a run."""

from collections.abc import Iterator
from dataclasses import replace

from attncontrol.attention.moment import Moment


def each_step(now: Moment) -> Iterator[Moment]:
    """The same moment in every step of the run."""
    for index in range(now.step.total):
        yield replace(now, step=replace(now.step, index=index))


def each_call(now: Moment) -> Iterator[Moment]:
    """The same in every step in which the denoiser is known to run: of several that run in turn
    this one alone."""
    yield from [now] if now.step.in_turn else each_step(now)


def stands_for_all(now: Moment) -> bool:
    """Whether ``each_call`` has something here that no call before it had."""
    return now.step.in_turn or now.step.done == 0
