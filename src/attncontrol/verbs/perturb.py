"""``perturb``: a second, deliberately weakened prediction, and guidance away from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from attncontrol.attention.edit import Editor
from attncontrol.attention.edit import at as fixed
from attncontrol.attention.moment import Purpose
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import NotNegative, Share, Shares, Unchecked, checked
from attncontrol.edits.skip_layers import SkipLayers
from attncontrol.running.calls import DenoiserCall, prediction_of
from attncontrol.running.reuse import Prefix, prefix_before
from attncontrol.running.session import Hooks, Session, attach
from attncontrol.running.skip import SkippedBlocks, watched_blocks
from attncontrol.verbs.idle import Watch
from attncontrol.verbs.places import Heads, On, PerImage, listed
from attncontrol.verbs.plan import Plan


@checked
@contextmanager
def perturb(
    pipe: Any,
    edit: Annotated[Editor | SkipLayers | Sequence[On], Unchecked],
    *,
    scale: NotNegative | Callable[[float], float],
    where: Where | None = None,
    heads: Heads | PerImage | None = None,
    steps: Shares = (0.0, 1.0),
    rescale: Share = 0.0,
) -> Iterator[None]:
    """Adds w (e_cond - e_perturbed) to the prediction, on top of whatever guidance the pipeline
    does.

        with perturb(pipe, SoftIdentity(u=0.5), scale=2.0, where=Where(kind="self")):
            image = pipe(prompt).images[0]

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
    diffusers and HeadHunter's pipelines w = scale; papers that write e_p + g (e - e_p) have
    g = w + 1.

    Raises SiteError if nothing is selected, EditError for edits that change more than attention,
    SettingError, UnsupportedError, CouplingError.
    """
    run = attach(pipe)
    placed = listed(edit, where, heads)
    layers = [name for on in placed if isinstance(on.edit, SkipLayers) for name in on.edit.layers]
    edits = [on for on in placed if not isinstance(on.edit, SkipLayers)]
    plan = Plan.of(edits, run.sites, steps)
    plan.require_attention_alone("in a weakened pass of perturb: use it with edit")
    with ExitStack() as stack:

        def purpose() -> Purpose | None:
            return run.purpose

        changed = [*plan.sites, *layers]
        skipped = stack.enter_context(watched_blocks(run.denoiser, layers, purpose))
        stack.enter_context(run.eagerly(changed))  # other blocks stay compiled
        prefix = stack.enter_context(prefix_before(run.denoiser, changed, purpose))
        guidance = _Guidance(run, plan, Watch(plan, run), skipped, prefix, scale, rescale)
        hooks = Hooks(before=guidance.before, after=guidance.after, kept=plan.kept)
        stack.enter_context(run.hooked(hooks))
        yield
    guidance.watch.warn()


@dataclass(eq=False)
class _Guidance:
    """``difference`` is what the step adds to the prediction of every branch, where that is of the
    latents: what else a denoiser puts out, of text or references, the pipeline drops."""

    run: Session
    plan: Plan
    watch: Watch
    skipped: SkippedBlocks
    prefix: Prefix
    scale: float | Callable[[float], float]
    rescale: float
    difference: Tensor | None = None

    def before(self, call: DenoiserCall) -> None:
        self.watch.begin(call)
        self.prefix.begin(call)

    def after(self, call: DenoiserCall, prediction: Tensor) -> Tensor:
        if not call.nth:
            self.difference = None
        if "cond" in call.branches and self._acts(call.step.progress):
            rows = call.rows("cond")
            own = prediction[rows][call.part]
            weight = fixed(self.scale, call.step.progress, NotNegative)
            if weight != 0:
                difference = weight * (own - self._weakened(call, rows))
                self.difference = _rescaled(own, difference, self.rescale)
        if self.difference is None or "skip" in call.branches:
            return prediction
        count, changed = len(call.branches), prediction.clone()
        changed[call.part] += self.difference.repeat(count, *[1] * (self.difference.ndim - 1))
        return changed

    def _acts(self, progress: float) -> bool:
        first, last = self.plan.steps
        return self.plan.acts(progress) or (bool(self.skipped.names) and first <= progress <= last)

    def _weakened(self, call: DenoiserCall, rows: slice) -> Tensor:
        part, plan = call.of("cond"), self.plan
        with torch.no_grad(), self.prefix.again(rows, len(call.latents)), self.skipped.left_out():
            output = self.run.forward(part, "weakened", sites=plan.sites, edit=plan)
        return prediction_of(output)[call.part]


def _rescaled(base: Tensor, difference: Tensor, share: float) -> Tensor:
    if not share:
        return difference
    changed, axes = base + difference, tuple(range(1, base.ndim))
    factor = base.std(axes, keepdim=True) / changed.std(axes, keepdim=True)
    return changed * (share * factor + 1 - share) - base
