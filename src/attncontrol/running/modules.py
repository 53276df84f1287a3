"""Outputs of modules that are no attention, handed to the edits that change them."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from attncontrol.attention.call import Layout
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import path_matches
from attncontrol.errors import SiteError
from attncontrol.running.contexts import Contexts, Seat
from attncontrol.running.observers import Hook, inputs_of


@contextmanager
def modules_watched(contexts: Contexts, seat: Seat) -> Iterator[None]:
    """The modules of a context's hooks, while it is open. Raises SiteError if there is none of a
    name."""
    patterns, eager = seat.hooks.modules, contexts.wiring.eager
    known = dict(contexts.denoiser.named_modules()) if patterns else {}
    with ExitStack() as stack:
        for pattern in patterns:
            chosen = [name for name in known if name and path_matches(name, pattern)]
            if not chosen:
                raise SiteError(f"no module of {type(contexts.denoiser).__name__} is {pattern!r}")
            stack.enter_context(eager.running(contexts.denoiser, chosen))
            for name in chosen:
                hook = Hook(functools.partial(_passed, contexts, seat, name))
                handle = known[name].register_forward_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
        yield


def _passed(
    contexts: Contexts,
    seat: Seat,
    name: str,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
) -> Any:
    """None, which changes nothing, in passes that are none of these contexts'."""
    one, function = contexts.wiring.current, seat.hooks.passed
    acting = one is not None and one.owner is contexts and seat in contexts.acting
    if one is None or not acting or one.purpose == "probe" or function is None:
        return None
    call = one.call
    now = Moment(
        call.step, Layout(()), one.purpose, call.branches, call.images, call.text, one.riders
    )
    return function(name, inputs_of(module, args, kwargs), output, now)
