"""One session per pipeline: what its contexts hook into it, and which run is going on.

``encode_prompt`` tells the prompts and marks the start of a run. A forward pre-hook of the denoiser
sees every call with all its arguments; those of other pipelines that share the denoiser are left
alone. ``scheduler.step`` marks the end of a step.

Changing latents z by d means feeding x + c d to the denoiser and z + d to the scheduler, where
x = c z is the scheduler's (linear) scaling of the model input.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from attncontrol.attention.edit import Editor
from attncontrol.attention.intercept import Listener
from attncontrol.attention.moment import Purpose
from attncontrol.attention.sites import Site
from attncontrol.errors import CouplingError
from attncontrol.families.family import Family
from attncontrol.families.known import family_of
from attncontrol.running.calls import DenoiserCall, prediction_of, with_prediction
from attncontrol.running.own import caller, is_running, observe
from attncontrol.running.refuse import require_visible_attention
from attncontrol.running.track import Track, begun, described
from attncontrol.running.wiring import Pass, Sites, Wiring, wiring_of


@dataclass(frozen=True, eq=False)
class Hooks:
    """What one context hooks into the runs of a pipeline.

    ``before(call)`` may return a change of the latents, one row per image in units of the network
    input x, which holds for all branches until the scheduler's next step; only that of the first
    call before it counts. ``after(call, prediction)`` returns the prediction. ``edit`` acts at
    ``sites`` in every pass but those of an analysis, and takes images of number ``source`` along;
    ``listen`` sees the pipeline's own pass alone.
    """

    sites: Sites = field(default_factory=dict)
    edit: Editor | None = None
    listen: Listener | None = None
    source: tuple[int, ...] = ()
    before: Callable[[DenoiserCall], Tensor | None] | None = None
    after: Callable[[DenoiserCall, Tensor], Tensor] | None = None
    done: Callable[[], None] | None = None


@dataclass(eq=False)
class _Seat:
    """One open context, with what it has seen."""

    hooks: Hooks
    thread: int
    token: object = field(default_factory=object)
    calls: int = 0
    steps: int = 0


_ENTERED: ContextVar[frozenset[object]] = ContextVar("_ENTERED", default=frozenset())
"""Tokens of the contexts around the code that is running, in whatever thread it runs."""


@dataclass(eq=False)
class Session:
    """A pipeline with the facts of its family, the contexts that are open on it, and the run."""

    pipe: Any
    family: Family
    denoiser: nn.Module
    sites: Sites
    wiring: Wiring
    seats: list[_Seat] = field(default_factory=list)
    track: Track = field(default_factory=Track)
    current: DenoiserCall | None = None
    began: bool = False
    installed: list[Callable[[], None]] = field(default_factory=list)
    scheduler: Any = None
    seeds: tuple[int, ...] = ()
    soloist: _Seat | None = None

    @contextmanager
    def hooked(self, hooks: Hooks, *, alone: bool = False) -> Iterator[None]:
        """The hooks act until the block ends. Contexts may close in any order. ``alone`` hides from
        all others what the pipeline does in the block.

        Raises CouplingError at a normal end if the denoiser or the scheduler never ran.
        """
        require_visible_attention(self.pipe, self.denoiser)
        seat = _Seat(hooks, threading.get_ident())
        with self.wiring.wrapping(self.denoiser, hooks.sites):
            self._enter(seat)
            before = self.soloist, self.track
            if alone:
                self.soloist, self.track = seat, Track()
            try:
                yield
            finally:
                if alone:
                    self.soloist, self.track = before
                self._leave(seat)
        self._require_run(seat)

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
        with self.passing(call, purpose, sites=sites, edit=edit, listen=listen):
            return self.denoiser.forward(**call.arguments)  # not __call__: hooks see own calls only

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
    ) -> Iterator[None]:
        """What the denoiser computes in the block belongs to this pass; for its gradient too."""
        sites = sites or {}
        one = self._pass(call, purpose, riders)
        if edit is not None:
            one = replace(one, editors=(*one.editors, (sites, edit)))
        if listen is not None:
            one = replace(one, listeners=(*one.listeners, (sites, listen)))
        with self.wiring.wrapping(self.denoiser, sites), self.wiring.running(one):
            yield

    @property
    def purpose(self) -> Purpose | None:
        """Why the denoiser is running now."""
        return self.wiring.purpose

    @property
    def acting(self) -> tuple[_Seat, ...]:
        """The contexts that see what the pipeline does now."""
        return tuple(self.seats) if self.soloist is None else (self.soloist,)

    @property
    def sources(self) -> tuple[int, ...]:
        """The images that edits of open contexts take attention from."""
        return tuple(dict.fromkeys(image for seat in self.acting for image in seat.hooks.source))

    def _pass(self, call: DenoiserCall, purpose: Purpose, riders: int = 0) -> Pass:
        layout = functools.cache(
            functools.partial(self.family.layout, self.denoiser, call.arguments)
        )
        hooks = [seat.hooks for seat in self.acting]
        editors = tuple((h.sites, h.edit) for h in hooks if h.edit and purpose != "probe")
        listeners = tuple((h.sites, h.listen) for h in hooks if h.listen and purpose == "own")
        return Pass(call, purpose, layout, editors, listeners, riders)

    def _enter(self, seat: _Seat) -> None:
        with _LOCK:
            if not self.seats:
                self._install()
                _OPEN[id(self.pipe)] = self
            self.seats.append(seat)
        _ENTERED.set(_ENTERED.get() | {seat.token})

    def _leave(self, seat: _Seat) -> None:
        _ENTERED.set(_ENTERED.get() - {seat.token})
        with _LOCK:
            self.seats.remove(seat)
            if not self.seats:
                del _OPEN[id(self.pipe)]
                while self.installed:
                    self.installed.pop()()

    def _install(self) -> None:
        """Hooks are plain functions: a copy of the denoiser keeps them, and they leave it alone."""
        pipe, denoiser, self.scheduler = self.pipe, self.denoiser, self.pipe.scheduler

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._before(args, kwargs) if module is denoiser else None

        def after(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> Any:
            return self._after(args, kwargs, output) if module is denoiser else None

        def done(module: nn.Module, *_: Any) -> None:
            if module is denoiser:
                self._done()

        handles = [
            denoiser.register_forward_pre_hook(before, with_kwargs=True),
            denoiser.register_forward_hook(after, with_kwargs=True),
            denoiser.register_forward_hook(done, always_call=True),
        ]
        self.installed += [handle.remove for handle in handles]
        observers = {"check_inputs": self._on_start, "encode_prompt": self._on_prompt}
        observers["prepare_latents"] = self._on_latents
        for name, observer in observers.items():
            if hasattr(pipe, name):
                self.installed.append(observe(pipe, name, observer))
        self.installed.append(observe(self.scheduler, "step", self._on_step))

    def _on_start(self, _: dict[str, Any]) -> None:
        self._require_thread()
        self.track = Track(thread=threading.get_ident())

    def _on_prompt(self, bound: dict[str, Any]) -> None:
        self._require_thread()
        track = self.track
        if track.encoding and track.time is None:  # a second encoder, or the negative prompt
            return
        self.track = begun(self.pipe, bound, threading.get_ident())

    def _on_latents(self, bound: dict[str, Any]) -> None:
        given = bound.get("generator")
        generators = given if isinstance(given, list) else [] if given is None else [given]
        self.seeds = tuple(generator.initial_seed() for generator in generators)

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pipe = caller()
        if pipe is not self.pipe:  # another one, or a call by hand
            self.began = id(pipe) not in _OPEN
            if self.began:
                self.wiring.begin(None, outermost=True)
            return None
        self._require_thread()
        self.began = True
        if self.pipe.scheduler is not self.scheduler:
            raise CouplingError(
                f"pipe.scheduler was replaced inside the block, by {type(self.pipe.scheduler).__name__}"
                ", whose steps are not seen; set it before the block"
            )
        call = described(self.pipe, self.family, self.track, _named(self.denoiser, args, kwargs))
        self.track.thread = threading.get_ident()
        self.wiring.begin(None, outermost=True)
        changed = self._changed(call)
        for seat in self.acting:
            self.wiring.require_installed(seat.hooks.sites)
        self.current = changed
        self.wiring.begin(self._pass(changed, "own"), outermost=True)
        return None if changed is call else ((), changed.arguments)

    def _changed(self, call: DenoiserCall) -> DenoiserCall:
        """With the changes of the latents that the contexts make, each after those before it."""
        track, changed = self.track, call
        if call.nth == 0:
            track.changes, track.scale = [], call.step.scale
        else:
            for change in track.changes:
                changed = _moved(changed, change)
        for seat in self.acting:
            seat.calls += 1
            change = seat.hooks.before(changed) if seat.hooks.before else None
            if change is not None and call.nth == 0:
                track.changes.append(change)
                changed = _moved(changed, change)
        return changed

    def _after(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if self.current is None:
            return None
        call = replace(self.current, arguments=_named(self.denoiser, args, kwargs))
        for seat in self.acting:
            if seat.hooks.after:
                prediction = seat.hooks.after(call, prediction_of(output))
                output = with_prediction(output, prediction)
        return output

    def _done(self) -> None:
        if self.began:
            self.wiring.end()
        if self.current is not None:
            for seat in self.acting:
                if seat.hooks.done:
                    seat.hooks.done()
        self.current, self.began = None, False

    def _on_step(self, bound: dict[str, Any]) -> None:
        if caller() is not self.pipe:
            return
        self._require_thread()
        track, sample = self.track, bound["sample"]
        for change in reversed(track.changes):
            sample = sample + change.to(sample).view_as(sample) / track.scale
        bound["sample"] = sample
        track.stepped, track.changes = True, []
        for seat in self.acting:
            seat.steps += 1

    def _require_thread(self) -> None:
        """Raises CouplingError where two threads would share this pipeline."""
        own, entered = threading.get_ident(), _ENTERED.get()
        if not any(seat.thread == own or seat.token in entered for seat in self.seats):
            raise CouplingError(
                f"a context is open on this {type(self.pipe).__name__} in another thread; one thread "
                "at a time may call a pipeline: use a lock, or a pipeline for each thread"
            )
        other = self.track.thread
        if other not in (None, own) and is_running(self.pipe, other):
            raise CouplingError(
                f"this {type(self.pipe).__name__} is running in another thread; one thread at a time "
                "may call a pipeline: use a lock, or a pipeline for each thread"
            )

    def _require_run(self, seat: _Seat) -> None:
        if seat.calls and seat.steps:
            return
        what = "scheduler.step was never called" if seat.calls else "the denoiser was never called"
        raise CouplingError(
            f"{what}: call this pipeline ({type(self.pipe).__name__}) inside the with block"
        )


_OPEN: dict[int, Session] = {}
_LOCK = threading.RLock()


def attach(pipe: Any) -> Session:
    """The session of a pipeline: the one that is open, or a new one. Raises UnsupportedError."""
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    if id(pipe) in _OPEN:
        if _OPEN[id(pipe)].denoiser is not denoiser:
            raise CouplingError("the denoiser was replaced inside the block; do that before it")
        return _OPEN[id(pipe)]
    sites: Mapping[str, Site] = {site.name: site for site in family.sites(denoiser)}
    return Session(pipe, family, denoiser, sites, wiring_of(denoiser))


def _moved(call: DenoiserCall, change: Tensor) -> DenoiserCall:
    change = change.repeat(len(call.branches), *[1] * (change.ndim - 1))
    return call.with_latents(call.latents + change.to(call.latents))


def _named(denoiser: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(denoiser.forward).parameters
    names = [name for name, _ in zip(parameters, args, strict=False)]
    return dict(zip(names, args, strict=True)) | dict(kwargs)
