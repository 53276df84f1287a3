"""``perturb``: a second, deliberately weakened prediction, and guidance away from it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.intercept import tap
from attncontrol.attention.sites import Site, Where
from attncontrol.edits.skip_layers import SkipLayers
from attncontrol.errors import CouplingError, SiteError
from attncontrol.families.known import family_of
from attncontrol.running.calls import DenoiserCall, aside, prediction_of
from attncontrol.running.follow import follow
from attncontrol.running.reuse import shared

Edit = Callable[[AttentionCall, Layout], Tensor]
"""The output of an attention call, for all the heads that it is given."""
Heads = Sequence[tuple[str, int]]
"""(site, head)."""


@dataclass(frozen=True)
class PerImage:
    """Heads of its own for every image of the batch."""

    heads: tuple[Heads, ...]


@dataclass(frozen=True)
class On:
    """An edit with its place: ``heads`` (all of ``where`` if None)."""

    edit: Edit | SkipLayers
    where: Where | None = None
    heads: Heads | PerImage | None = None


@contextmanager
def perturb(
    pipe: Any,
    edit: Edit | SkipLayers | Sequence[On],
    *,
    scale: float | Callable[[float], float],
    where: Where | None = None,
    heads: Heads | PerImage | None = None,
    steps: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
) -> Iterator[None]:
    """Adds w (e_cond - e_perturbed) to the prediction, on top of whatever guidance the pipeline
    does.

    e_perturbed is one more conditional pass in which ``edit`` changes attention at the sites of
    ``where``, or at ``heads`` [(site, head), ...] only, which ``PerImage`` gives for every image of
    the batch; several edits with places of their own are a list of ``On``; ``SkipLayers`` leaves
    out whole blocks. Blocks before the first change are not computed again; their outputs are held
    meanwhile. The difference is added to every branch of the batch, the same one in the second call
    of a step, so that classifier-free guidance, which is linear, leaves it as it is for any
    guidance scale. Pipelines that rescale the guided prediction rescale it too.

    ``scale`` is w >= 0, or a function of the progress of the run, as any setting of an edit may be;
    ``steps`` is the share of the run in which it acts. ``rescale`` r in 0 .. 1 multiplies the
    changed conditional prediction by 1 - r + r std(e_cond) / std(it). Conventions: here, in
    diffusers and HeadHunter's pipelines w = scale; papers that write e_p + g (e - e_p) have g = w +
    1.

    Raises SiteError if nothing is selected, UnsupportedError, CouplingError.
    """
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    known = {site.name: site for site in family.sites(denoiser)}
    placed = edit if isinstance(edit, Sequence) else [On(edit, where, heads)]
    plan = [(on.edit, _selected(on, known)) for on in placed if not isinstance(on.edit, SkipLayers)]
    skips = [on.edit for on in placed if isinstance(on.edit, SkipLayers)]
    sites = {name: known[name] for _, chosen in plan for name in chosen}
    difference: Tensor | None = None

    def on_output(call: DenoiserCall, prediction: Tensor) -> Tensor:
        nonlocal difference
        progress = call.step.index / max(call.step.total - 1, 1)
        if not call.nth:
            difference = None
        if not steps[0] <= progress <= steps[1] or not (sites or skips):
            return prediction
        if "cond" in call.branches:
            rows = call.rows("cond")
            w = scale(progress) if callable(scale) else scale
            now = [(_at(of, progress), chosen) for of, chosen in plan]
            if any(
                len(mask) not in (1, call.images) for _, chosen in now for mask in chosen.values()
            ):
                raise CouplingError(f"heads are given per image, but not for {call.images} images")
            if w == 0 or (not skips and all(getattr(of, "u", 1) == 0 for of, _ in now)):
                return prediction  # bit-identical
            weakened = _weakened(call, rows, now)
            difference = _rescaled(prediction[rows], w * (prediction[rows] - weakened), rescale)
        if difference is None or "skip" in call.branches:
            return prediction
        return prediction + difference.repeat(len(call.branches), *[1] * (difference.ndim - 1))

    def _weakened(
        call: DenoiserCall, rows: slice, now: Sequence[tuple[Edit, Mapping[str, Tensor]]]
    ) -> Tensor:
        part = call.select(torch.arange(rows.start, rows.stop))

        def handler(attention: AttentionCall) -> Tensor:
            if attention.index:
                return attention.run()
            layout = family.layout(denoiser, part.arguments, attention.site)
            return _edited(
                attention,
                layout,
                [
                    (of, chosen[attention.site.name])
                    for of, chosen in now
                    if attention.site.name in chosen
                ],
            )

        with ExitStack() as stack:
            stack.enter_context(again(rows, len(call.latents)))
            for skipped in skipping:
                stack.enter_context(skipped())
            for each in (aside(), torch.no_grad(), tap(denoiser, sites, handler)):
                stack.enter_context(each)
            return prediction_of(
                denoiser.forward(**part.arguments)
            )  # not __call__: contexts see only the pipeline's own calls

    with ExitStack() as stack:
        skipping = [stack.enter_context(skip.watch(denoiser)) for skip in skips]
        again = stack.enter_context(
            shared(denoiser, [*sites, *(name for skip in skips for name in skip.layers)])
        )
        stack.enter_context(follow(pipe, family, lambda _: None, on_output=on_output))
        yield


def _selected(on: On, known: Mapping[str, Site]) -> dict[str, Tensor]:
    """By site which heads are changed, [image head], or [1 head] if the same ones in all images."""
    if on.heads is None and on.where is None:
        raise SiteError(
            "say which attention to weaken: where=Where(kind='self', layers=('mid_block',)) or heads=[(site, head), ...]"
        )
    allowed = (
        known if on.where is None else {site.name: site for site in on.where.select(known.values())}
    )
    if on.heads is None:
        return {name: torch.ones(1, site.heads, dtype=torch.bool) for name, site in allowed.items()}
    images = on.heads.heads if isinstance(on.heads, PerImage) else (on.heads,)
    chosen: dict[str, Tensor] = {}
    for image, heads in enumerate(images):
        for name, head in heads:
            if name not in allowed or not 0 <= head < allowed[name].heads:
                has = (
                    f"; it has {allowed[name].heads} heads"
                    if name in allowed
                    else f"; sites are: {', '.join(allowed)}"
                )
                raise SiteError(f"there is no head {head} at {name!r}{has}")
            chosen.setdefault(
                name, torch.zeros(len(images), allowed[name].heads, dtype=torch.bool)
            )[image, head] = True
    return chosen


def _at(edit: Edit, progress: float) -> Edit:
    """The edit with every setting that is a function of the progress fixed."""
    if not is_dataclass(edit) or isinstance(edit, type):
        return edit
    moving = {
        field.name: getattr(edit, field.name)
        for field in fields(edit)
        if callable(getattr(edit, field.name))
    }
    return replace(edit, **{name: value(progress) for name, value in moving.items()})


def _edited(call: AttentionCall, layout: Layout, edits: Sequence[tuple[Edit, Tensor]]) -> Tensor:
    """The output in which each edit made its heads; only these are computed twice."""
    if len(edits) == 1 and edits[0][1].all():
        return edits[0][0](call, layout)
    output = call.run().clone()
    for edit, chosen in edits:
        heads = chosen.any(0).nonzero()[:, 0].tolist()
        own = chosen[:, heads, None, None].to(output.device)
        output[:, heads] = torch.where(own, edit(call.of_heads(heads), layout), output[:, heads])
    return output


def _rescaled(base: Tensor, difference: Tensor, share: float) -> Tensor:
    if not share:
        return difference
    changed, axes = base + difference, tuple(range(1, base.ndim))
    factor = base.std(axes, keepdim=True) / changed.std(axes, keepdim=True)
    return changed * (share * factor + 1 - share) - base
