"""One more pass of the denoiser for what an objective looks at."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.running.adapters import scaled_adapters
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.looking import View
from attncontrol.running.seen import Seen
from attncontrol.running.session import Session


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Ends the denoiser's forward once every wanted site has been seen."""


@contextmanager
def seeing(run: Session, view: View, part: DenoiserCall, riders: int = 0) -> Iterator[Seen]:
    """What one pass shows of the sites of ``view``; gradients are taken in the block. ``riders``
    are rows at the end that are there for edits alone."""
    seen = Seen()

    def listen(attention: AttentionCall, now: Moment) -> Tensor:
        again = view.complete(seen)  # gradient checkpointing computes it again
        output = view.look(attention, now, seen)
        if view.complete(seen) and not again:
            raise _Enough
        return output

    with (
        run.passing(part, "gradient", sites=view.gaze.sites, listen=listen, riders=riders),
        scaled_adapters(run.denoiser, part.arguments) as arguments,
    ):
        with suppress(_Enough):
            run.denoiser.forward(**arguments)
        yield seen
