"""Blocks left out of a pass: each returns, in the place of every output, the input of its shape."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from attncontrol.attention.moment import Purpose
from attncontrol.errors import ModelError, SiteError
from attncontrol.running.observers import Hook
from attncontrol.running.reuse import standing_in


@dataclass(eq=False)
class SkippedBlocks:
    """``returned`` are the shapes that the blocks ``names`` put out in the pipeline's own pass."""

    denoiser: nn.Module
    names: Sequence[str]
    purpose: Callable[[], Purpose | None]
    returned: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in self.names:
                block = self.denoiser.get_submodule(name)
                passing = functools.partial(_pass, block, name, self.returned[name])
                stack.enter_context(standing_in(block, passing))
            yield

    def _learn(self, name: str, _: nn.Module, __: Any, output: Any) -> None:
        if self.purpose() == "own":
            self.returned[name] = _shapes(output)


@contextmanager
def watched_blocks(
    denoiser: nn.Module, names: Sequence[str], purpose: Callable[[], Purpose | None]
) -> Iterator[SkippedBlocks]:
    """Learns from the pipeline's own calls what each block returns; ``purpose`` says why the
    denoiser runs. Raises SiteError if there is no such block."""
    modules = dict(denoiser.named_modules())
    unknown = [n for n in names if n not in modules or n.rpartition(".")[0] not in modules]
    if unknown:
        blocks = [n for n in modules if n.count(".") == 1 and n.rpartition(".")[2].isdecimal()]
        raise SiteError(f"there is no block {unknown[0]!r}; blocks are: {', '.join(blocks)}")
    skipped = SkippedBlocks(denoiser, names, purpose)
    with ExitStack() as stack:
        for name in names:
            learn = functools.partial(skipped._learn, name)
            stack.callback(modules[name].register_forward_hook(Hook(learn)).remove)
        yield skipped


def _shapes(output: Any) -> Any:
    """Without the batch axis, as parts of the batch run alone."""
    if isinstance(output, Tensor):
        return output.shape[1:]
    return None if output is None else tuple(_shapes(part) for part in output)


def _pass(block: nn.Module, name: str, returned: Any, *args: Any, **kwargs: Any) -> Any:
    """The forward of a block that is left out."""
    bound = inspect.signature(type(block).forward).bind(block, *args, **kwargs).arguments
    inputs = [bound.get(key) for key in ("hidden_states", "encoder_hidden_states")]

    def find(shape: Any) -> Tensor | None:
        fitting = [v for v in inputs if isinstance(v, Tensor) and v.shape[1:] == shape]
        if shape is not None and len(fitting) != 1:
            raise ModelError(
                f"{name}: picture and text cannot be told apart by the shape {tuple(shape)}; "
                "change max_sequence_length"
            )
        return fitting[0] if fitting else None

    return tuple(map(find, returned)) if type(returned) is tuple else find(returned)
