"""Whether a pipeline is as it was: everything that contexts install on it, by identity."""

from torch import nn

from attncontrol.running import session
from attncontrol.running.contexts import ENTERED
from attncontrol.running.wiring import wiring_of

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def denoiser_of(pipe):
    return getattr(pipe, "transformer", None) or pipe.unet


def state(pipe):
    """By name, the objects themselves: they are compared by identity, and stay alive meanwhile."""
    found = {}
    for owner, name in ((pipe, "pipe"), (pipe.scheduler, "scheduler")):
        methods = {key: value for key, value in vars(owner).items() if callable(value)}
        parts = {key: value for key, value in methods.items() if not isinstance(value, nn.Module)}
        found |= {f"{name}.{key}": value for key, value in parts.items()}
        found[f"vars of {name}"] = frozenset(vars(owner))
    for name, module in denoiser_of(pipe).named_modules():
        found |= {f"{name}.{hooks}": tuple(getattr(module, hooks).values()) for hooks in _HOOKS}
        found |= {f"{name}.{key}": vars(module).get(key) for key in ("processor", "forward")}
    for name, parameter in denoiser_of(pipe).named_parameters():
        found[f"{name}.requires_grad"] = parameter.requires_grad
    return found


def changes(before, after):
    """What differs between two states, and what sessions still hold."""
    names = [name for name in before | after if not _same(before.get(name), after.get(name))]
    return {name: (before.get(name), after.get(name)) for name in names}


def _same(one, other):
    if isinstance(one, tuple | frozenset | bool):
        return one == other
    return one is other


def left_behind(pipe):
    """What sessions hold of a pipeline although none should be open."""
    wiring = wiring_of(denoiser_of(pipe))
    kept = {
        "open sessions": dict(session._OPEN),
        "wrapped": dict(wiring.wrapped),
        "passes": dict(wiring.passes),
        "tokens": ENTERED.get(),
    }
    return {name: value for name, value in kept.items() if value}
