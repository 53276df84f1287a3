"""The contexts that are open on a pipeline, what each hooks into its runs, and where the run is."""

import functools
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from attncontrol.attention.call import Layout
from attncontrol.attention.edit import Editor
from attncontrol.attention.intercept import Listener
from attncontrol.attention.moment import Moment, Purpose
from attncontrol.attention.source import SourcePass
from attncontrol.errors import ThreadError
from attncontrol.families.family import Family
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.heard import Heard, Hearing
from attncontrol.running.own import caller, is_running, is_running_elsewhere
from attncontrol.running.track import Track
from attncontrol.running.wiring import Pass, Sites, Wiring


@dataclass(frozen=True, eq=False)
class Hooks:
    """What one context hooks into the runs of a pipeline.

    ``before(call)`` may return a change of the latents, one row per image in units of the network
    input x, which holds for all branches until the scheduler's next step; only that of the first
    call before it counts. ``after(call, prediction)`` returns the prediction. ``edit`` acts at
    ``sites`` in every pass but those of an analysis, and takes images of number ``source`` along,
    or attention of ``kept`` passes; ``listen`` sees the pipeline's own pass alone. ``passed(name,
    inputs, output, now)`` returns the output of each of ``modules`` in the same passes as ``edit``.
    ``starts(latents)`` returns those with which a run begins, ``begun(latents, drawn, now)`` what
    is made of them where the pipeline had ``drawn`` others, ``fed(call)`` what the denoiser is
    given of latents that stay as they are, ``pinned(latents, call)`` those after a step of the
    scheduler, before ``stepped`` of any context.
    ``stepped(latents, now)`` returns the latents after a step of the scheduler, ``ended`` sees them
    when all contexts have changed them, ``decoded(pictures, now)`` returns the decoded pictures.
    ``source_of(image)`` is the image that another one takes from. ``texts`` follow that of the
    prompt wherever ``shows(progress)``. Caches of the denoiser are passed by unless ``cached``.
    A run that is ``backward`` goes from a picture to noise, with one evaluation for each step;
    contexts that hook into it ``both_ways`` see these steps too, last first.
    """

    sites: Sites = field(default_factory=dict)
    edit: Editor | None = None
    listen: Listener | None = None
    source: tuple[int, ...] = ()
    source_of: Callable[[int], int] = lambda image: image
    kept: tuple[SourcePass, ...] = ()
    modules: tuple[str, ...] = ()
    passed: Callable[[str, Mapping[str, Any], Any, Moment], Any] | None = None
    starts: Callable[[Tensor], Tensor] | None = None
    begun: Callable[[Tensor, Tensor, Moment], Tensor] | None = None
    fed: Callable[[DenoiserCall], DenoiserCall] | None = None
    pinned: Callable[[Tensor, DenoiserCall], Tensor] | None = None
    stepped: Callable[[Tensor, Moment], Tensor] | None = None
    decoded: Callable[[Tensor, Moment], Tensor] | None = None
    ended: Callable[[Tensor, Moment], None] | None = None
    texts: tuple[str, ...] = ()
    shows: Callable[[float], bool] = lambda _: True
    before: Callable[[DenoiserCall], Tensor | None] | None = None
    after: Callable[[DenoiserCall, Tensor], Tensor] | None = None
    done: Callable[[], None] | None = None
    cached: bool = False
    backward: bool = False
    both_ways: bool = False


@dataclass(eq=False)
class Seat:
    """One open context, with what it has seen."""

    hooks: Hooks
    thread: int
    token: object = field(default_factory=object)
    calls: int = 0
    steps: int = 0


ENTERED: ContextVar[frozenset[object]] = ContextVar("ENTERED", default=frozenset())
"""Tokens of the contexts around the code that is running, in whatever thread it runs."""


@dataclass(eq=False)
class Contexts:
    """Those open on one pipeline, in the order of their opening. ``soloist`` is one that hides what
    the pipeline does from the others. ``guider`` is that of a modular one. ``heard`` is what text
    encoders were given since the block began. ``left`` are sites that ran without their own kernel,
    by name, ``told`` those that a warning has named."""

    pipe: Any
    family: Family
    denoiser: nn.Module
    wiring: Wiring
    seats: list[Seat] = field(default_factory=list)
    soloist: Seat | None = None
    track: Track = field(default_factory=Track)
    seeds: tuple[int, ...] = ()
    guider: Any = None
    heard: Hearing = field(default_factory=Hearing)
    left: dict[str, Any] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=threading.RLock)

    @property
    def acting(self) -> tuple[Seat, ...]:
        """The contexts that see what the pipeline does now."""
        alone, back = self.soloist, self.is_backward
        seen = [seat for seat in self.seats if seat is alone or (back and seat.hooks.both_ways)]
        return tuple(self.seats if alone is None else seen)

    @property
    def is_backward(self) -> bool:
        """Whether the pipeline goes from a picture to noise."""
        return self.soloist is not None and self.soloist.hooks.backward

    @property
    def sources(self) -> tuple[int, ...]:
        """The images that edits of open contexts take attention from."""
        return tuple(dict.fromkeys(image for seat in self.acting for image in seat.hooks.source))

    def source_of(self, image: int) -> int:
        """The image that another one takes attention from; itself if from none."""
        found = (seat.hooks.source_of(image) for seat in self.acting)
        return next((of for of in found if of != image), image)

    @property
    def kept(self) -> tuple[SourcePass, ...]:
        """The kept passes that edits of open contexts take attention from."""
        return tuple(dict.fromkeys(source for seat in self.acting for source in seat.hooks.kept))

    @property
    def texts(self) -> tuple[str, ...]:
        """Further texts of open contexts, each once."""
        return tuple(dict.fromkeys(text for seat in self.acting for text in seat.hooks.texts))

    def shows(self, progress: float) -> bool:
        """Whether further texts are used at this share of the run."""
        return any(seat.hooks.texts and seat.hooks.shows(progress) for seat in self.acting)

    def pass_of(self, call: DenoiserCall, purpose: Purpose, riders: int = 0) -> Pass:
        layout = functools.cache(
            functools.partial(self.family.layout, self.denoiser, call.arguments)
        )
        hooks = [seat.hooks for seat in self.acting]
        editors = tuple((h.sites, h.edit) for h in hooks if h.edit and purpose != "probe")
        listeners = tuple((h.sites, h.listen) for h in hooks if h.listen and purpose == "own")
        return Pass(call, purpose, layout, editors, listeners, riders, self, self.left)

    def between(self, call: DenoiserCall, latents: Tensor, sites: Sites) -> Moment:
        """The moment after a step, whose layout is that of the latents as edits see them."""
        of_cells = self.family.layout(self.denoiser, call.arguments, next(iter(sites.values())))
        packed, before = latents.ndim == 3, self.track.before
        grid = of_cells.grid if packed else tuple(self.shown(latents).shape[2:])
        run, step = (call.images, call.text), call.step
        if step.stage:
            step = replace(step, stage=0, noise=self.track.noise)
        before = None if before is None else self.shown(before)
        layout = Layout(grid, references=of_cells.references)
        return Moment(step, layout, "own", ("cond",), *run, before=before)

    def shown(self, latents: Tensor) -> Tensor:
        """As edits see them: [image channel *grid], or [image cell channel]."""
        axis = 1 if latents.ndim == 3 else self.family.channels
        return latents if axis == 1 else latents.movedim(axis, 1)

    def stepped(self, hooks: Hooks, call: DenoiserCall, latents: Tensor) -> Tensor:
        """The latents after a step, as one context changes them."""
        assert hooks.stepped is not None  # who asks for it
        shown, now = self.shown(latents), self.between(call, latents, hooks.sites)
        return self._as_given(hooks.stepped(shown, now), shown, latents)

    def begun(self, hooks: Hooks, call: DenoiserCall, latents: Tensor, drawn: Tensor) -> Tensor:
        """The latents before the first step, as one context changes them."""
        assert hooks.begun is not None  # who asks for it
        shown, now = self.shown(latents), self.between(call, latents, hooks.sites)
        return self._as_given(hooks.begun(shown, self.shown(drawn), now), shown, latents)

    def _as_given(self, changed: Tensor, shown: Tensor, latents: Tensor) -> Tensor:
        if changed is shown:
            return latents
        return changed if shown is latents else changed.movedim(1, self.family.channels)

    def went_back(self, latents: Tensor, before: Tensor) -> None:
        """A step of a run to noise has led from ``latents`` to those ``before`` it."""
        track, call = self.track, self.track.call
        assert call is not None  # it ran
        track.latents, track.before = latents, before
        for seat in self.acting:
            if seat.hooks.stepped:
                self.stepped(seat.hooks, call, latents)

    def begin(self, track: Track) -> None:
        """A run of the pipeline, which belongs to this thread. Raises ThreadError."""
        with self.lock:
            self.require_thread()
            track.heard, track.backward = self.heard, self.is_backward
            self.track = track
            self.claim()

    def hear(self, rows: list[Heard]) -> None:
        """What a text encoder was given and made."""
        self.heard.hear(rows, by_hand=caller() is not self.pipe)

    def claim(self) -> None:
        """The run belongs to this thread. Raises ThreadError."""
        with self.lock:
            self.require_thread()
            self.track.thread = threading.get_ident()

    def enter(self, seat: Seat) -> None:
        """Raises ThreadError where another thread has a context open, or runs the pipeline."""
        with self.lock:
            if self.seats:
                self.require_thread()
            if is_running_elsewhere(self.pipe):
                raise ThreadError(self._busy)
            self.seats.append(seat)

    def require_thread(self) -> None:
        """Raises ThreadError where two threads would share this pipeline."""
        own, entered = threading.get_ident(), ENTERED.get()
        if not any(seat.thread == own or seat.token in entered for seat in self.seats):
            raise ThreadError(
                f"a context is open on this {type(self.pipe).__name__} in another thread; one "
                "thread at a time may call a pipeline: use a lock, or a pipeline for each thread"
            )
        other = self.track.thread
        if other not in (None, own) and is_running(self.pipe, other):
            raise ThreadError(self._busy)

    @property
    def _busy(self) -> str:
        return (
            f"this {type(self.pipe).__name__} is running in another thread; one thread at a time "
            "may call a pipeline: use a lock, or a pipeline for each thread"
        )
