"""Clean latents with noise, by the noise schedule of a scheduler.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e        a = alphas_cumprod
    x_t = (1 - s) x_0 + s e,   s = t / T         rectified flow, T training timesteps; 1 - t / T of
                                                 schedules that count from noise to the picture

x_0 is the picture in the denoiser's own latents, e ~ N(0, 1). Between two timesteps sqrt((1 - a) /
a) is linear.
"""

import math
from typing import Any

import numpy as np
from torch import Tensor

from attncontrol.errors import SchedulerError


def noised(scheduler: Any, clean: Tensor, noise: Tensor, timestep: float) -> Tensor:
    """x_t of the module's formula, of the module's formula."""
    sigma = noise_per_signal(scheduler, timestep)
    if _is_flow(scheduler):
        return (1 - sigma) * clean + sigma * noise
    return (clean + sigma * noise) / math.sqrt(1 + sigma**2)


def noise_per_signal(scheduler: Any, timestep: float) -> float:
    """sqrt((1 - a_t) / a_t), of rectified flow s. Raises SchedulerError if it is not known or
    there is no such timestep."""
    last = scheduler.config.num_train_timesteps
    if not 0 <= timestep <= last:
        raise SchedulerError(
            f"timestep {timestep} does not exist; {type(scheduler).__name__} knows those of 0 to "
            f"{last}"
        )
    if _is_flow(scheduler):
        turned = scheduler.config.get("invert_sigmas")
        return 1 - timestep / last if turned else timestep / last
    if not hasattr(scheduler, "alphas_cumprod"):
        raise SchedulerError(
            f"the noise schedule of {type(scheduler).__name__} is not known; use a DDIM or "
            "flow-matching scheduler"
        )
    kept = scheduler.alphas_cumprod.double().cpu().numpy()
    return float(np.interp(timestep, np.arange(len(kept)), np.sqrt((1 - kept) / kept)))


def _is_flow(scheduler: Any) -> bool:
    return hasattr(scheduler, "scale_noise") or bool(scheduler.config.get("use_flow_sigmas"))
