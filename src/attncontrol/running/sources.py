"""Whether a run can take attention from the sources that its edits name."""

from collections.abc import Sequence

from attncontrol.attention.source import Facts, SourcePass
from attncontrol.errors import CouplingError
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.contexts import Contexts


def facts_of(contexts: Contexts, call: DenoiserCall) -> Facts:
    """What run the first call of the denoiser begins."""
    pipe, denoiser, text = contexts.pipe, contexts.denoiser, call.text
    sites = tuple(contexts.family.sites(denoiser))
    first, total = contexts.track.place, call.step.evaluations
    times = tuple(map(float, pipe.scheduler.timesteps[first : first + total]))
    return Facts(
        model=_model(contexts),
        sites=sites,
        scheduler=type(pipe.scheduler).__name__,
        steps=call.step.total,
        timesteps=times[::-1] if call.step.backward else times,
        grid=tuple(contexts.family.layout(denoiser, call.arguments, sites[0]).grid),
        branches=call.branches,
        prompts=text.prompts,
        tokens=tuple(text.known(image) for image in range(len(text.prompts))),
    )


def require_model(contexts: Contexts, kept: Sequence[SourcePass]) -> None:
    """Raises CouplingError for a pass that is not finished, or of another model."""
    for source in kept:
        require_same_model(contexts, source.facts, "the source was kept from", "keep it from")


def require_same_model(contexts: Contexts, facts: Facts, what: str, remedy: str) -> None:
    """Raises CouplingError."""
    sites = tuple(contexts.family.sites(contexts.denoiser))
    if facts.model != _model(contexts) or facts.sites != sites:
        raise CouplingError(
            f"{what} {facts.model}, {len(facts.sites)} attention sites; this is "
            f"{_model(contexts)}, {len(sites)}: {remedy} this model"
        )


def require_sources(contexts: Contexts, call: DenoiserCall) -> None:
    """Raises CouplingError where an edit takes attention from a picture that is not made, or from a
    pass of another kind of run."""
    if missing := set(contexts.sources) - set(call.images):
        raise CouplingError(
            f"the source is image {min(missing)}, but the pipeline makes images "
            f"{list(call.images)}; give it a prompt for every image, the source's too"
        )
    if not call.is_first or not contexts.kept:
        return
    own = facts_of(contexts, call)
    for source in contexts.kept:
        require_same_run(source.facts, own, "the source was kept")
        if len(source.chosen) not in (1, len(call.images)):
            raise CouplingError(
                f"the source has {len(source.chosen)} images, but the pipeline makes "
                f"{len(call.images)}: name one for all, source[0], or one for each, source[0, 1]"
            )


def require_same_run(kept: Facts, own: Facts, what: str) -> None:
    """Raises CouplingError."""
    for name, shown in (("steps", "{} steps"), ("grid", "a picture of {} cells"),
                        ("scheduler", "{}"), ("timesteps", "the timesteps {}")):  # fmt: skip
        theirs, ours = getattr(kept, name), getattr(own, name)
        if theirs != ours:
            texts = [shown.format(_short(value)) for value in (theirs, ours)]
            raise CouplingError(
                f"{what} with {texts[0]}, this run has {texts[1]}: run it with the "
                "same size, steps and scheduler"
            )


def _short(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    if all(isinstance(each, int) for each in value):
        return " x ".join(map(str, value))
    return ", ".join(f"{each:.6g}" for each in value[:6]) + " ..." * (len(value) > 6)


def _model(contexts: Contexts) -> str:
    return f"{type(contexts.pipe).__name__} with {type(contexts.denoiser).__name__}"
