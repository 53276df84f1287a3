"""Whole transformer blocks left out: skip-layer guidance (SLG; Stability AI's sd3.5 code, from
ComfyUI).

In the weakened pass block(x) = x for the picture and the text, attention and feed-forward alike.
What the model adds between its blocks (the residuals of a ControlNet) stays; diffusers' SD3
pipeline drops that of a skipped block. SD 3.5 medium was released with w = 2.5, layers 7, 8, 9 and
steps=(0.01, 0.2).
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attncontrol.errors import SiteError, UnsupportedError
from attncontrol.running.reuse import standing_in


@dataclass(frozen=True)
class SkipLayers:
    """Edit for ``perturb``: the module paths of blocks, such as ``"transformer_blocks.7"``."""

    layers: tuple[str, ...]

    @contextmanager
    def watch(self, denoiser: nn.Module) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """Learns from the pipeline's own calls what each block returns; yields a context in which
        the blocks are left out.

        Raises SiteError if there is no such block.
        """
        modules = dict(denoiser.named_modules())
        if unknown := [
            name
            for name in self.layers
            if name not in modules or name.rpartition(".")[0] not in modules
        ]:
            blocks = [
                name
                for name in modules
                if name.count(".") == 1 and name.rpartition(".")[2].isdecimal()
            ]
            raise SiteError(f"there is no block {unknown[0]!r}; blocks are: {', '.join(blocks)}")
        returned: dict[str, Any] = {}

        @contextmanager
        def skipped() -> Iterator[None]:
            with ExitStack() as stack:
                for name in self.layers:
                    stack.enter_context(
                        standing_in(modules[name], _passing(modules[name], name, returned[name]))
                    )
                yield

        with ExitStack() as stack:
            for name in self.layers:
                hook = modules[name].register_forward_hook(
                    lambda _m, _i, out, name=name: returned.__setitem__(name, _shapes(out))
                )
                stack.callback(hook.remove)
            yield skipped


def _shapes(output: Any) -> Any:
    """Without the batch axis, as parts of the batch run alone."""
    if isinstance(output, Tensor):
        return output.shape[1:]
    return None if output is None else tuple(_shapes(part) for part in output)


def _passing(block: nn.Module, name: str, returned: Any) -> Callable[..., Any]:
    """A forward that returns, in the place of each output, the input of its shape."""
    signature = inspect.signature(block.forward)

    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs).arguments
        inputs = [
            bound[key]
            for key in ("hidden_states", "encoder_hidden_states")
            if isinstance(bound.get(key), Tensor)
        ]

        def find(shape: Any) -> Tensor | None:
            fitting = [value for value in inputs if value.shape[1:] == shape]
            if shape is not None and len(fitting) != 1:
                raise UnsupportedError(
                    f"{name}: picture and text cannot be told apart by the shape {tuple(shape)}; change max_sequence_length"
                )
            return fitting[0] if fitting else None

        return (
            tuple(find(shape) for shape in returned) if type(returned) is tuple else find(returned)
        )

    return forward
