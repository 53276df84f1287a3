"""What cannot be handled exactly is refused, by name and with the remedy."""

from typing import Any

from torch import nn

from attncontrol.errors import BackendError, ModelError
from attncontrol.families.family import Family
from attncontrol.running.cache import drops_rows
from attncontrol.running.eager import is_compiled


def require_visible_attention(pipe: Any, denoiser: nn.Module) -> None:
    """Raises BackendError where attention is compiled for good, or shared among devices."""
    if compiled := {type(each) for each in denoiser.modules() if is_compiled(type(each).forward)}:
        raise BackendError(
            f"{compiled.pop().__name__}.forward is compiled in the class itself, where hooks are "
            "ignored; compile the model instead: pipe.transformer.compile_repeated_blocks()"
        )
    processors = [getattr(module, "processor", None) for module in denoiser.modules()]
    if any(getattr(processor, "_parallel_config", None) is not None for processor in processors):
        raise BackendError(
            f"{type(pipe).__name__} shares its attention among devices (context parallel), which "
            "is not supported"
        )


def require_all_rows(denoiser: nn.Module) -> None:
    """Raises BackendError for a cache that leaves rows of the batch out."""
    if drops_rows(denoiser):
        raise BackendError(
            "FasterCache leaves the unconditional rows of a batch out in some steps, so what is "
            "recorded would have no branch; switch it off (denoiser.disable_cache()) before the "
            "block"
        )


def require_gradients(family: Family, denoiser: nn.Module) -> None:
    """Raises ModelError for weights that were made in inference mode, and for gradient
    checkpointing where diffusers fails under it."""
    if not family.checkpoints and getattr(denoiser, "is_gradient_checkpointing", False):
        raise ModelError(
            f"diffusers fails under gradient checkpointing of {type(denoiser).__name__}; call "
            "disable_gradient_checkpointing()"
        )
    if any(parameter.is_inference() for parameter in denoiser.parameters()):
        raise ModelError(
            "the model was loaded under torch.inference_mode, so nothing has a gradient through "
            "it; load it outside"
        )
