"""``keep``: what edits take of a source, kept for later runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from attncontrol.attention.edit import Edit, Editor
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Shares, Such, Unchecked, checked
from attncontrol.errors import EditError
from attncontrol.maps.kept import KeptPass, kept, stepping
from attncontrol.maps.opened import path_of
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.edit import localising
from attncontrol.verbs.keeper import Keeper
from attncontrol.verbs.places import On, require_edits
from attncontrol.verbs.plan import Plan


@checked
@contextmanager
def keep(
    pipe: Any,
    edit: Annotated[Editor | Sequence[Editor | On], Unchecked],
    *,
    where: Where | None = None,
    steps: Shares = (0.0, 1.0),
    to: Annotated[Path | str | None, Such("a folder", lambda to: to != "")] = None,
    device: str = "cpu",
    limit: Annotated[float, Such("a number of bytes", lambda x: x >= 0)] = 4.0 * 2**30,
) -> Iterator[KeptPass]:
    """Keeps what edits take of their source from one pipeline call, whose pictures are
    bit-identical to those made without; so N edits of one source cost N + 1 passes.

        with keep(pipe, Replace()) as source:
            cat = pipe("a cat and a car", generator=torch.Generator().manual_seed(0)).images[0]
        with edit(pipe, Replace(source=source)):
            dog = pipe("a dog and a car", generator=torch.Generator().manual_seed(0)).images[0]

    ``edit`` is an edit with a source, or a list of these, with places of their own as ``On``; what
    is kept is what each says that it takes: queries, keys, values or maps, by site, step and
    branch, latents, outputs of other modules, the picture. ``where`` and ``steps`` are as in
    ``edit``. Edits that are open meanwhile change what is kept. The number ``source`` of the edits
    has no meaning here: every image is kept.

    A run that uses it has the same model, picture size, steps, timesteps and scheduler, and the
    branches that its edits take; prompts, guidance scale and the number of images are its own. A
    warning says where the source had guidance and the run has none.
    Where ``steer`` and ``perturb`` run the denoiser once more, the source is as in its own pass.

    An inversion is such a call too, from its end to its beginning, so a picture that exists is kept
    while it is inverted, and edited inside ``retrace(pipe, trajectory, images=())``:

        with keep(pipe, Replace()) as source:
            trajectory = invert(pipe, photo, "a red cat")

    By ``Exact()`` that is what a run in ``retrace`` without guidance keeps. By other methods that
    evaluate the model once a step it is attention on the way to noise; ``FixedPoint``, ``FlowEdit``
    and solvers, and what null texts are optimised with, are not seen. Edits that are open meanwhile
    do not act in an inversion.

    Tensors keep their type and lie on ``device``, or, with ``to``, in a folder that takes its place
    when the block ends without an error; the memory of one step is held then. ``source.save(file)``
    writes a file, ``kept(path)`` reads both.

    Yields a KeptPass, complete when the block ends. Raises EditError for edits without a source;
    SizeError in the first step if more than ``limit`` bytes would be kept; CouplingError if the
    pipeline is called twice or stopped before its last step, or if nothing was taken; WriteError if
    the folder holds something else, before anything runs.
    """
    run, source = attach(pipe), KeptPass()
    plan = Plan.of(_with_source(edit, where), run.sites, steps, localising(run))
    folder = None if to is None else path_of(to)
    with nullcontext() if folder is None else stepping(folder) as files:
        keeper = Keeper(run, plan, device, limit, files)
        hooks = Hooks(
            sites=plan.sites, before=keeper.before, listen=keeper.listen, modules=plan.modules,
            passed=keeper.passed, stepped=keeper.stepped, both_ways=True,
            decoded=keeper.decoded if plan.shows_sources else None,
        )  # fmt: skip
        with run.hooked(hooks):
            yield source
        facts = keeper.finish()
    tensors = keeper.tensors if folder is None else kept(folder).tensors
    source.complete(facts, tensors)


def _with_source(edit: Any, where: Where | None) -> list[On]:
    """Raises EditError."""
    require_edits(edit)
    several = isinstance(edit, Sequence)
    listed = list(edit) if several else [edit]
    placed = [each if isinstance(each, On) else On(each, where) for each in listed]
    for on in placed:
        if not isinstance(on.edit, Edit) or on.edit.source is None:
            raise EditError(
                f"{on.edit!r} takes nothing from a source; edits with a source are kept for, such "
                "as Replace()"
            )
    return placed
