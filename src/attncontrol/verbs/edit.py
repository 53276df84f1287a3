"""``edit``: change attention in the pipeline's own pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from attncontrol.attention.edit import Editor
from attncontrol.attention.sites import TEXT, Where
from attncontrol.checks.arguments import Shares, Unchecked, checked
from attncontrol.running.session import Hooks, Session, attach
from attncontrol.verbs.idle import Watch
from attncontrol.verbs.places import Heads, On, PerImage, listed
from attncontrol.verbs.plan import Plan


@checked
@contextmanager
def edit(
    pipe: Any,
    edit: Annotated[Editor | Sequence[On], Unchecked],
    *,
    where: Where | None = None,
    heads: Heads | PerImage | None = None,
    steps: Shares = (0.0, 1.0),
) -> Iterator[None]:
    """Attention is what ``edit`` makes of it, in the pipeline's own pass and in every pass that
    ``steer`` and ``perturb`` add, in all branches.

        with edit(pipe, MutualAttention()):
            source, changed = pipe(["a frog", "a blue frog"], generator=same_seeds).images

    ``edit`` is an object of ``attncontrol.edits`` or a function (call, now) of an ``AttentionCall``
    and a ``Moment``, which returns the changed call or its output. It acts at the sites of
    ``where`` (those of the edit unless given), or at ``heads`` [(site, head), ...] only, which
    ``PerImage`` gives for every image of the batch. Several edits with places of their own are a
    list of ``On``: each sees what those before it made of a call. ``steps`` is the share of the run
    in which all this acts, both ends included.

    Edits nest: an outer one sees a call first, and a run of it goes through the inner ones.
    ``record`` and ``steer`` see the edited attention wherever their contexts are opened. An edit
    with a ``source`` takes attention of that image of the batch, which stays as it is: the picture
    of the source is bit-identical to that of the same call without edit; or it takes that of a pass
    which ``keep`` kept.

    An edit of which nothing can have come says why in a warning: no step of the run lies where it
    acts, or its source is the only image. Raises SiteError, SettingError and EditError before
    anything is changed; CouplingError if the pipeline was not called inside the block, or makes no
    image of that number; also if a kept pass is of another kind of run, or lacks what the edit
    takes.
    """
    run = attach(pipe)
    plan = Plan.of(listed(edit, where, heads), run.sites, steps, localising(run))
    if run.family.patched:
        plan.require_attention_alone(f"to {type(pipe).__name__}, whose latents are no grid")
    watch = Watch(plan, run)
    hooks = Hooks(
        sites=plan.sites, edit=plan, source=plan.sources, source_of=plan.source_of, kept=plan.kept,
        modules=plan.modules, passed=plan.passed, begun=plan.begun, stepped=plan.stepped,
        decoded=plan.decoded, texts=plan.texts, shows=plan.shows, before=watch.begin,
    )  # fmt: skip
    with run.hooked(hooks):
        yield
    watch.warn()


def localising(run: Session) -> Where:
    """Where ``steer`` looks; all that sees text in models that cannot be steered."""
    known = tuple(run.sites.values())
    steering = run.family.steering
    return TEXT if isinstance(steering, str) else steering(known)[0]
