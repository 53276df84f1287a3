"""One session per pipeline: its facts, and the one way in for all that acts on its attention."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from attncontrol.attention.edit import Editor
from attncontrol.attention.intercept import Listener
from attncontrol.attention.moment import Purpose
from attncontrol.errors import CouplingError
from attncontrol.families.family import Family
from attncontrol.families.known import family_of
from attncontrol.running.blocks import close_left
from attncontrol.running.calls import DenoiserCall, prediction_of
from attncontrol.running.contexts import ENTERED, Contexts, Hooks, Seat
from attncontrol.running.eager import compiled_parts
from attncontrol.running.events import Events
from attncontrol.running.finite import require_finite
from attncontrol.running.further import require_further
from attncontrol.running.kernels import dispatching, tell_left, tell_replaced
from attncontrol.running.modular import require_described, require_seen
from attncontrol.running.modules import modules_watched
from attncontrol.running.refuse import require_all_rows, require_visible_attention
from attncontrol.running.sources import require_model
from attncontrol.running.track import Track
from attncontrol.running.wiring import Pass, Sites, wiring_of

__all__ = ["Hooks", "Session", "attach"]


@dataclass(eq=False)
class Session:
    """A pipeline with the facts of its family and its attention sites by name."""

    pipe: Any
    family: Family
    denoiser: nn.Module
    sites: Sites
    contexts: Contexts
    events: Events

    @contextmanager
    def hooked(self, hooks: Hooks, *, alone: bool = False) -> Iterator[None]:
        """The hooks act until the block ends. Contexts may close in any order. ``alone`` hides from
        all others what the pipeline does in the block.

        Raises CouplingError at a normal end if the denoiser or the scheduler never ran.
        """
        require_visible_attention(self.pipe, self.denoiser)
        if hooks.cached and hooks.listen:
            require_all_rows(self.denoiser)
        require_model(self.contexts, hooks.kept)
        require_seen(self.pipe, hooks)
        if hooks.texts:
            require_further(self.pipe, self.family)
        tell_replaced(self.contexts, hooks.sites)
        contexts, seat = self.contexts, Seat(hooks, threading.get_ident())
        wiring = contexts.wiring
        wrapping = wiring.wrapping(self.denoiser, hooks.sites)
        computed = nullcontext() if hooks.cached else wiring.caches.off(self.denoiser)
        with (
            self.eagerly(),
            self._seated(seat),
            computed,
            wrapping,
            modules_watched(contexts, seat),
        ):
            before = contexts.soloist, contexts.track
            if alone:
                contexts.soloist, contexts.track = seat, Track(backward=hooks.backward)
            try:
                yield
            finally:
                if alone:
                    contexts.soloist, contexts.track = before
        if not (seat.calls and seat.steps):
            what = "scheduler.step" if seat.calls else "the denoiser"
            raise CouplingError(
                f"{what} was never called: call this pipeline ({type(self.pipe).__name__}) inside "
                f"the with block{_INVERSIONS if hooks.both_ways else ''}"
            )
        tell_left(contexts)

    def forward(
        self,
        call: DenoiserCall,
        purpose: Purpose,
        *,
        sites: Sites | None = None,
        edit: Editor | None = None,
        listen: Listener | None = None,
    ) -> Any:
        """Runs the denoiser once more: the one place that does. ``edit`` and ``listen`` act at
        ``sites`` in this pass alone, inside the edits of contexts."""
        with self.passing(call, purpose, sites=sites, edit=edit, listen=listen) as one:
            output = self.denoiser.forward(**call.arguments)  # hooks of __call__ see own calls only
            require_finite(prediction_of(output), self.contexts, call, one)
            return output

    @contextmanager
    def passing(
        self,
        call: DenoiserCall,
        purpose: Purpose,
        *,
        sites: Sites | None = None,
        edit: Editor | None = None,
        listen: Listener | None = None,
        riders: int = 0,
    ) -> Iterator[Pass]:
        """What the denoiser computes in the block belongs to this pass; for its gradient too."""
        sites = sites or {}
        tell_replaced(self.contexts, sites)
        wrapped = {**dispatching(self.denoiser), **sites} if purpose == "gradient" else sites
        one = self.contexts.pass_of(call, purpose, riders)
        if edit is not None:
            one = replace(one, editors=(*one.editors, (sites, edit)))
        if listen is not None:
            one = replace(one, listeners=(*one.listeners, (sites, listen)))
        wiring = self.contexts.wiring
        computed = wiring.caches.off(self.denoiser)
        with wiring.wrapping(self.denoiser, wrapped), computed, wiring.running(one):
            yield one

    @contextmanager
    def eagerly(self, names: Iterable[str] = ()) -> Iterator[None]:
        """The denoiser, and all that lies between it and the modules ``names``, is not compiled in
        the block; other blocks stay as they are."""
        eager = self.contexts.wiring.eager
        with eager.holding(compiled_parts(self.pipe)), eager.running(self.denoiser, names):
            yield

    @property
    def purpose(self) -> Purpose | None:
        """Why the denoiser is running now in this thread; None if not for this pipeline."""
        one = self.contexts.wiring.current
        return one.purpose if one is not None and one.owner is self.contexts else None

    @property
    def running(self) -> Sites:
        """The sites of the denoiser that runs now, where a pipeline has several in turn."""
        start = self.family.running(self.denoiser)
        return {name: site for name, site in self.sites.items() if name.startswith(start)}

    @property
    def sources(self) -> tuple[int, ...]:
        """The images that edits of open contexts take attention from."""
        return self.contexts.sources

    def source_of(self, image: int) -> int:
        """The image that another one takes attention from; itself if from none."""
        return self.contexts.source_of(image)

    @property
    def hides(self) -> bool:
        """Whether one context hides from all others what the pipeline does now."""
        return self.contexts.soloist is not None

    @property
    def decodes(self) -> bool:
        """Whether a context that hooks into inversions too looks at decoded pictures."""
        return any(seat.hooks.both_ways and seat.hooks.decoded for seat in self.contexts.seats)

    @property
    def takes(self) -> bool:
        """Whether edits of open contexts take attention from a source."""
        return bool(self.contexts.sources or self.contexts.kept)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the generators of the run."""
        return self.contexts.seeds

    @contextmanager
    def _seated(self, seat: Seat) -> Iterator[None]:
        with _LOCK:
            self._require_sole()
            self.contexts.enter(seat)
            _OPEN[id(self.pipe)] = self
        ENTERED.set(ENTERED.get() | {seat.token})
        try:
            self.events.install()
            yield
        finally:
            ENTERED.set(ENTERED.get() - {seat.token})
            with _LOCK:
                self.contexts.seats.remove(seat)
                if not self.contexts.seats:
                    del _OPEN[id(self.pipe)]
                    self.events.remove()

    def _require_sole(self) -> None:
        other = _OPEN.get(id(self.pipe), self)
        if other is not self:
            other.contexts.require_thread()
            raise CouplingError(
                "another session of the same pipeline was opened after attach(pipe) made this one; "
                "attach it where it is used"
            )


_INVERSIONS = "; of inversions those are seen that evaluate the model once a step, such as Exact()"
_OPEN: dict[int, Session] = {}
_LOCK = threading.RLock()


def _is_open(pipe: Any) -> bool:
    return id(pipe) in _OPEN


def attach(pipe: Any) -> Session:
    """The session of a pipeline: the one that is open, or a new one. Raises UnsupportedError."""
    family = family_of(pipe)
    require_described(pipe, family)
    close_left()
    denoiser = family.denoiser(pipe)
    if _is_open(pipe):
        if _OPEN[id(pipe)].denoiser is not denoiser:
            raise CouplingError("the denoiser was replaced inside the block; do that before it")
        return _OPEN[id(pipe)]
    sites = {site.name: site for site in family.sites(denoiser)}
    contexts = Contexts(pipe, family, denoiser, wiring_of(denoiser))
    return Session(pipe, family, denoiser, sites, contexts, Events(contexts, _is_open))
