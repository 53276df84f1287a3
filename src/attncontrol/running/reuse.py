"""What two passes of a denoiser share: the blocks before the first one that differs need not run
twice."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from attncontrol.attention.moment import Purpose
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.observers import Hook


@dataclass(eq=False)
class Prefix:
    """What blocks put out in the pipeline's own pass before the first changed block began.

    Blocks are the members of the denoiser's own lists. ``purpose`` says why the denoiser runs.
    """

    purpose: Callable[[], Purpose | None]
    kept: dict[nn.Module, Any] = field(default_factory=dict)
    keeping: bool = False

    @contextmanager
    def again(self, rows: slice, total: int) -> Iterator[None]:
        """The blocks give these rows of the ``total`` once more instead of computing. One whose
        outputs do not start with the batch is computed. What is kept is dropped after use."""
        with ExitStack() as stack:
            for block, output in self.kept.items():
                leaves = tree_leaves(output)
                if all(isinstance(leaf, Tensor) and leaf.shape[:1] == (total,) for leaf in leaves):
                    part = tree_map(lambda leaf: leaf[rows], output)
                    stack.enter_context(standing_in(block, part))
            self.kept.clear()
            yield

    def begin(self, _: DenoiserCall) -> None:
        """A call of the pipeline's own begins."""
        self.keeping = True
        self.kept.clear()

    def _end(self, *_: Any) -> None:
        self.keeping = self.keeping and self.purpose() != "own"

    def _keep(self, block: nn.Module, _: Any, output: Any) -> None:
        if self.keeping and self.purpose() == "own":
            self.kept[block] = output


@contextmanager
def prefix_before(
    denoiser: nn.Module, changed: Iterable[str], purpose: Callable[[], Purpose | None]
) -> Iterator[Prefix]:
    """Keeps the outputs of the blocks before the first that holds one of the modules ``changed``,
    but for compiled blocks, which cannot be watched."""
    lists = [(name, of) for name, of in denoiser.named_children() if isinstance(of, nn.ModuleList)]
    blocks = {f"{name}.{i}": block for name, of in lists for i, block in of.named_children()}
    outer = {".".join(path.split(".")[:2]) for path in changed}
    names = [name if name in blocks else name.split(".")[0] for name in outer]
    prefix = Prefix(purpose)
    with ExitStack() as stack:
        for name in names:
            block = denoiser.get_submodule(name)
            stack.callback(block.register_forward_pre_hook(Hook(prefix._end)).remove)
        for block in (each for each in blocks.values() if each._compiled_call_impl is None):
            stack.callback(block.register_forward_hook(Hook(prefix._keep)).remove)
        yield prefix


@contextmanager
def standing_in(module: nn.Module, output: Any) -> Iterator[None]:
    """The module gives ``output`` in this thread, whatever comes; a function is called instead of
    its ``forward``."""
    thread = threading.get_ident()
    with _LOCK:
        place = vars(module).get("forward")
        if not isinstance(place, _StandIn):
            place = module.forward = _StandIn(module.forward, place)
        place.outputs[thread] = output
    try:
        yield
    finally:
        with _LOCK:
            del place.outputs[thread]
            if not place.outputs:
                place.leave(module)


@dataclass(eq=False)
class _StandIn:
    """In the place of a module's ``forward``, with the ``outputs`` for threads. ``previous`` is
    what was set there, as offloading hooks do, None if nothing."""

    forward: Callable[..., Any]
    previous: Callable[..., Any] | None
    outputs: dict[int, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        thread = threading.get_ident()
        if thread not in self.outputs:
            return self.forward(*args, **kwargs)
        output = self.outputs[thread]
        return output(*args, **kwargs) if callable(output) else output

    def leave(self, module: nn.Module) -> None:
        if self.previous is None:
            del module.forward
        else:
            module.forward = self.previous


_LOCK = threading.Lock()
