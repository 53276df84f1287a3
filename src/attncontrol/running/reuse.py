"""What two passes of a denoiser share: the blocks before the first one that differs need not run
twice."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from attncontrol.running.calls import probing

Again = Callable[[slice, int], AbstractContextManager[None]]


@contextmanager
def shared(denoiser: nn.Module, changed: Iterable[str]) -> Iterator[Again]:
    """Keeps what blocks put out in the pipeline's own call before the first block that holds one of
    the modules ``changed`` began.

    Yields ``again(rows, total)``: a context in which they give these rows of the ``total`` once
    more instead of computing. Blocks are the members of the denoiser's own lists; one whose outputs
    do not start with the batch is computed. What is kept is dropped after use.
    """
    lists = [(name, of) for name, of in denoiser.named_children() if isinstance(of, nn.ModuleList)]
    blocks = {f"{name}.{i}": block for name, of in lists for i, block in of.named_children()}
    outer = {".".join(path.split(".")[:2]) for path in changed}
    first = [
        denoiser.get_submodule(name if name in blocks else name.split(".")[0]) for name in outer
    ]
    kept: dict[nn.Module, Any] = {}
    keeping = False

    def begin(*_: Any) -> None:
        nonlocal keeping
        keeping = True
        kept.clear()

    def end(*_: Any) -> None:
        nonlocal keeping
        keeping = keeping and probing.get()

    def keep(block: nn.Module, _: Any, output: Any) -> None:
        if keeping and not probing.get():
            kept[block] = output

    @contextmanager
    def again(rows: slice, total: int) -> Iterator[None]:
        with ExitStack() as stack:
            for block, output in kept.items():
                if all(
                    isinstance(leaf, Tensor) and leaf.shape[:1] == (total,)
                    for leaf in tree_leaves(output)
                ):
                    stack.enter_context(
                        standing_in(block, tree_map(lambda leaf: leaf[rows], output))
                    )
            kept.clear()
            yield

    with ExitStack() as stack:
        stack.callback(denoiser.register_forward_pre_hook(begin).remove)
        for block in first:
            stack.callback(block.register_forward_pre_hook(end).remove)
        for block in blocks.values():
            stack.callback(block.register_forward_hook(keep).remove)
        yield again


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
