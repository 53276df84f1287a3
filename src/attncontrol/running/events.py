"""What is seen of a pipeline from outside, all of it undone by ``remove``.

``encode_prompt`` tells the prompts and marks the start of a run (``modular`` has what does so in
modular pipelines), and the text encoders tell which ids reach them. A forward pre-hook of the
denoiser sees every call with all its arguments; those of other pipelines that share the denoiser
are left alone. ``scheduler.step`` marks the end of a step.

Changing latents z by d means feeding x + c d to the denoiser and z + d to the scheduler, where
x = c z is the scheduler's (linear) scaling of the model input; ``solvers`` has what keeps older
latents.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from attncontrol.errors import CouplingError
from attncontrol.families.parts import told_by
from attncontrol.running.calls import DenoiserCall, prediction_of, with_prediction
from attncontrol.running.contexts import Contexts
from attncontrol.running.finite import require_finite
from attncontrol.running.further import read
from attncontrol.running.heard import listen
from attncontrol.running.modular import follow, watch_guider
from attncontrol.running.observers import Hook, named, observe
from attncontrol.running.own import caller
from attncontrol.running.reading import Ids, watch
from attncontrol.running.solvers import corrector_of, move_block, stage_of
from attncontrol.running.sources import require_sources
from attncontrol.running.starting import change_of, replaced
from attncontrol.running.track import Track, begun, described, seeds_of


@dataclass(eq=False)
class Events:
    """``is_open`` says whether a pipeline has contexts of its own. ``running`` are the calls of the
    denoiser that are going on, by thread; None where it is one that these contexts do not see."""

    contexts: Contexts
    is_open: Callable[[Any], bool]
    scheduler: Any = None
    running: dict[int, DenoiserCall | None] = field(default_factory=dict)
    installed: list[Callable[[], None]] = field(default_factory=list)

    def install(self) -> None:
        """Does nothing where that is done."""
        if self.installed:
            return
        pipe, denoiser = self.contexts.pipe, self.contexts.denoiser
        self.scheduler = pipe.scheduler
        handles = [
            denoiser.register_forward_pre_hook(Hook(self._before), with_kwargs=True),
            denoiser.register_forward_hook(Hook(self._after), with_kwargs=True),
            denoiser.register_forward_hook(Hook(self._done), always_call=True),
        ]
        self.installed += [handle.remove for handle in handles]
        self.installed += watch(pipe, self._on_ids) + watch_guider(self.contexts)
        self.installed += listen(pipe, self.contexts.hear)
        for name, observer, after in (
            ("check_inputs", self._on_start, None),
            *((name, self._on_prompt, None) for name in told_by(pipe)),
            ("prepare_latents", self._on_latents, self._on_prepared),
        ):  # fmt: skip
            if hasattr(pipe, name):
                self.installed.append(observe(pipe, name, observer, after))
        self.installed.append(observe(self.scheduler, "step", self._on_step, self._on_stepped))
        if corrector := corrector_of(self.scheduler):
            self.installed.append(observe(self.scheduler, corrector, _nothing, self._on_corrected))
        if hasattr(getattr(pipe, "vae", None), "decode"):
            self.installed.append(observe(pipe.vae, "decode", _nothing, self._on_decoded))

    def _on_start(self, _: dict[str, Any]) -> None:
        if caller() is not self.contexts.pipe:
            return
        self.contexts.begin(Track())
        self._require_parts()

    def _on_prompt(self, bound: dict[str, Any]) -> None:
        if caller() is not self.contexts.pipe:  # by hand, for prompt_embeds
            return
        self.contexts.require_thread()
        track = self.contexts.track
        if track.encoding and track.time is None:  # a second encoder, or the negative prompt
            track.again(self.contexts.pipe, bound)
            return
        pipe, contexts = self.contexts.pipe, self.contexts
        track = begun(pipe, bound)
        track.further = read(pipe, contexts.family, contexts.texts, track.encoding)
        contexts.begin(track)

    def _on_ids(self, component: str, rows: list[Ids]) -> None:
        if caller() is self.contexts.pipe and follow(self.contexts):
            self.contexts.track.received.setdefault(component, []).extend(rows)

    def _on_latents(self, bound: dict[str, Any]) -> None:
        self.contexts.seeds = seeds_of(bound)

    def _on_prepared(self, output: Any) -> Any:
        return replaced(self.contexts, output) if caller() is self.contexts.pipe else output

    def _require_parts(self) -> None:
        """Raises CouplingError where a part of the pipeline is no longer that which is watched."""
        contexts, pipe = self.contexts, self.contexts.pipe
        if pipe.scheduler is not self.scheduler:
            raise CouplingError(
                "pipe.scheduler was replaced inside the block, by "
                f"{type(pipe.scheduler).__name__}, whose steps are not seen; set it before the "
                "block"
            )
        if contexts.family.denoiser(pipe) is not contexts.denoiser:
            raise CouplingError("the denoiser was replaced inside the block; do that before it")

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        contexts, pipe, thread = self.contexts, caller(), threading.get_ident()
        self.running.pop(thread, None)  # one that was interrupted
        if pipe is not contexts.pipe and self.is_open(pipe):
            return None
        if pipe is contexts.pipe:
            if not follow(contexts):
                return None
            contexts.claim()
            self._require_parts()
        self.running[thread] = None
        contexts.wiring.begin(None, outermost=True)  # until the contexts have had their passes
        if pipe is not contexts.pipe:  # another one, or a call by hand
            return None
        arguments = named(contexts.denoiser, args, kwargs)
        call = described(pipe, contexts.family, contexts.track, arguments)
        if contexts.track.further and contexts.shows(call.step.progress):
            call = contexts.track.further.after(call)
        require_sources(contexts, call)
        if (begun := change_of(contexts, call)) is not None:
            call = call.moved(begun)
        for seat in contexts.acting:
            call = seat.hooks.fed(call) if seat.hooks.fed else call
            contexts.wiring.require_installed(seat.hooks.sites)
        changed = self._changed(call, begun)
        self.running[thread] = contexts.track.call = changed
        contexts.wiring.begin(contexts.pass_of(changed, "own"), outermost=True)
        return None if changed.arguments is arguments else ((), changed.arguments)

    def _changed(self, call: DenoiserCall, begun: Tensor | None) -> DenoiserCall:
        """With the changes of the latents that the contexts make, each after those before it, the
        first of which a call that ``begun`` the run has."""
        track, changed = self.contexts.track, call
        if call.nth == 0:
            track.changes = [] if begun is None else [begun]
            track.scale = call.step.scale
        else:
            for change in track.changes:
                changed = changed.moved(change)
        for seat in self.contexts.acting:
            seat.calls += 1
            wanted = seat.hooks.before(changed) if seat.hooks.before else None
            if wanted is not None and call.nth == 0:
                track.changes.append(wanted)
                changed = changed.moved(wanted)
        return changed

    def _after(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        own = self.running.get(threading.get_ident())
        if own is None:
            return None
        call = replace(own, arguments=named(self.contexts.denoiser, args, kwargs))
        for seat in self.contexts.acting:
            if seat.hooks.after:
                prediction = seat.hooks.after(call, prediction_of(output))
                output = with_prediction(output, prediction)
        one = self.contexts.pass_of(call, "own")
        require_finite(prediction_of(output), self.contexts, call, one)
        return output

    def _done(self, *_: Any) -> None:
        thread = threading.get_ident()
        if thread not in self.running:
            return
        self.contexts.wiring.end(thread)
        if self.running.pop(thread) is not None:
            for seat in self.contexts.acting:
                if seat.hooks.done:
                    seat.hooks.done()

    def _on_step(self, bound: dict[str, Any]) -> None:
        if caller() is not self.contexts.pipe:
            return
        self.contexts.require_thread()
        track = self.contexts.track
        bound["sample"] = track.start(bound["sample"])
        if track.moved is not None:
            move_block(self.scheduler, track.moved)
        for seat in self.contexts.acting:
            seat.steps += 1

    def _on_corrected(self, corrected: Tensor) -> Tensor:
        moved = self.contexts.track.moved
        if caller() is not self.contexts.pipe or moved is None:
            return corrected
        return corrected + moved.to(corrected)

    def _on_stepped(self, output: Any) -> Any:
        contexts, track, call = self.contexts, self.contexts.track, self.contexts.track.call
        if caller() is not contexts.pipe or call is None or track.backward:
            return output
        track.latents = prediction_of(output)
        estimates = len(track.latents) != len(call.images)  # of all branches (Cosmos-Predict 1)
        if estimates or (stage_of(self.scheduler) and not call.step.is_last):  # within a step
            return output
        hooks = [seat.hooks for seat in contexts.acting]
        for of in hooks:
            if of.pinned:
                track.change_to(of.pinned(track.latents, call))
        for of in hooks:
            if of.stepped:
                track.change_to(contexts.stepped(of, call, track.latents))
        for of in hooks:
            if of.ended:
                now = contexts.between(call, track.latents, of.sites)
                of.ended(contexts.shown(track.latents), now)
        changed = track.latents is not prediction_of(output)
        return with_prediction(output, track.latents) if changed else output

    def _on_decoded(self, output: Any) -> Any:
        contexts = self.contexts
        call, latents = contexts.track.call, contexts.track.latents
        if caller() is not contexts.pipe or call is None or latents is None:
            return output
        if call.step.index + 1 < call.step.total or len(prediction_of(output)) != len(call.images):
            return output  # a preview, or pictures one by one
        for seat in contexts.acting:
            if seat.hooks.decoded:
                now = contexts.between(call, latents, seat.hooks.sites)
                pictures = seat.hooks.decoded(prediction_of(output), now)
                output = with_prediction(output, pictures)
        return output

    def remove(self) -> None:
        while self.installed:
            self.installed.pop()()
        self.contexts.heard.rows.clear()
        for thread in list(self.running):  # calls that were interrupted
            self.contexts.wiring.end(thread)
        self.running.clear()


def _nothing(_: dict[str, Any]) -> None: ...
