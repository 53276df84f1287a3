"""What two passes of a denoiser share: the blocks before the first one that differs need not run
twice."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from attncontrol.attention.moment import Purpose


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

    def _begin(self, *_: Any) -> None:
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
    """Keeps the outputs of the blocks before the first that holds one of the modules
    ``changed``."""
    lists = [(name, of) for name, of in denoiser.named_children() if isinstance(of, nn.ModuleList)]
    blocks = {f"{name}.{i}": block for name, of in lists for i, block in of.named_children()}
    outer = {".".join(path.split(".")[:2]) for path in changed}
    names = [name if name in blocks else name.split(".")[0] for name in outer]
    prefix = Prefix(purpose)
    with ExitStack() as stack:
        stack.callback(denoiser.register_forward_pre_hook(prefix._begin).remove)
        for name in names:
            hook = denoiser.get_submodule(name).register_forward_pre_hook(prefix._end)
            stack.callback(hook.remove)
        for block in blocks.values():
            stack.callback(block.register_forward_hook(prefix._keep).remove)
        yield prefix


@contextmanager
def standing_in(module: nn.Module, output: Any) -> Iterator[None]:
    """The module gives ``output`` whatever comes; a function is called instead of its
    ``forward``."""
    own = vars(module).get("forward")  # that of an offloading hook
    module.forward = output if callable(output) else lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
