"""How solvers step: evaluations within a step, and older latents that would hide a change.

Changing latents z by d before a step must leave z + d as what the step starts from. Three kinds of
solvers need more than ``step(prediction, t, z + d)``:

* Heun, KDPM2, DPMSolverSDE, PNDM with Runge-Kutta steps evaluate the network several times in a
  step and keep the latents of the first evaluation. Changes are made there, and are exact.
* UniPC, SA correct the latents once more from those *before* the last step, whatever they are
  given. d is added to what the corrector returns: to first order in the step h that is the
  corrected latents, moved by d; the network's answer to d enters the corrector, as h d.
* DPMSolverSinglestep begins a block of up to three evaluations from kept latents. These move by
  d / a, where a is the factor of the latents in the exact solution without the network's answer
  (sigma_t / sigma_s, in terms of noise alpha_t / alpha_s): the block then ends moved by what d
  becomes in a step of first order, to first order in h.

All others are affine in the latents they are given.
"""

from typing import Any

from torch import Tensor

from attncontrol.errors import SchedulerError

CORRECTORS = ("multistep_uni_c_bh_update", "stochastic_adams_moulton_update")


def require_known_steps(scheduler: Any) -> None:
    """Raises SchedulerError for schedulers that would drop a change of the latents."""
    name, order = type(scheduler).__name__, getattr(scheduler, "order", 1)
    hidden = hasattr(scheduler, "last_sample") and corrector_of(scheduler) is None
    if hidden or (order != 1 and not _has_stages(scheduler)):
        why = "keeps earlier latents" if hidden else "takes several evaluations per step"
        raise SchedulerError(
            f"{name} {why} in a way that is not known, so a change of the latents would be lost; "
            "use one of diffusers, such as "
            "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"
        )


def require_whole(change: Tensor, sample: Tensor) -> None:
    """Raises SchedulerError where the scheduler is given a part of the latents that changed."""
    if change.numel() != sample.numel():
        raise SchedulerError(
            f"the pipeline gives its scheduler latents of shape {(*sample.shape,)}, but the "
            f"denoiser others, of {(*change.shape,)}: frames or pictures that stay as they are lie "
            "among these, so a change of the latents cannot follow; record and edit work"
        )


def stage_of(scheduler: Any) -> int:
    """The number of the evaluation within the step, before it."""
    if runge_kutta := _runge_kutta(scheduler):
        return scheduler.counter % 4 if scheduler.counter < runge_kutta else 0
    return int(_has_stages(scheduler) and not scheduler.state_in_first_order)


def steps_among(scheduler: Any, evaluations: int) -> int:
    """How many steps a run of so many evaluations has."""
    if runge_kutta := _runge_kutta(scheduler):
        return -(-min(evaluations, runge_kutta) // 4) + max(evaluations - runge_kutta, 0)
    return (evaluations + 1) // 2 if _has_stages(scheduler) else evaluations


def noise_at(scheduler: Any, place: int) -> float:
    """The timestep at a place of the schedule as a share of those that the model was trained with,
    whatever units the denoiser is told; 0 after the last one. Some schedules are in such shares;
    those that are turned round count from noise."""
    times = scheduler.timesteps
    if place >= len(times):
        return 0.0
    trained = scheduler.config.get("num_train_timesteps") or (1 if times.max() <= 1 else 1000)
    share = float(times[place]) / trained
    return 1 - share if scheduler.config.get("invert_sigmas") else share


def _has_stages(scheduler: Any) -> bool:
    """Whether it says which of two evaluations comes; one of flows only with a schedule."""
    return hasattr(type(scheduler), "state_in_first_order")


def _runge_kutta(scheduler: Any) -> int:
    """The number of evaluations of a PNDM scheduler that are four to a step."""
    if not hasattr(scheduler, "plms_timesteps"):
        return 0
    return len(scheduler.timesteps) - len(scheduler.plms_timesteps)


def corrector_of(scheduler: Any) -> str | None:
    """The method that corrects the latents from those before the last step."""
    return next((name for name in CORRECTORS if hasattr(scheduler, name)), None)


def move_block(scheduler: Any, change: Tensor) -> None:
    """Moves what a scheduler keeps of the beginning of a block of evaluations, if it is within
    one, so that the block goes on from latents moved by ``change``."""
    if not hasattr(scheduler, "order_list") or scheduler.step_index is None:
        return
    known = 1 + sum(output is not None for output in scheduler.model_outputs[1:])
    order = min(scheduler.order_list[scheduler.step_index], known)
    if order > 1:
        factor = _factor(scheduler, scheduler.step_index - order + 1, scheduler.step_index)
        scheduler.sample = scheduler.sample + change.to(scheduler.sample) / factor


def _factor(scheduler: Any, first: int, last: int) -> float:
    """What latents are multiplied by between two noise levels, by place, apart from what the
    network says: in terms of the picture sigma_t / sigma_s (with noise times e^-h, h the change
    of log(alpha / sigma)), in terms of noise alpha_t / alpha_s."""
    (alpha, sigma), (alpha_s, sigma_s) = (
        tuple(map(float, scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[place])))
        for place in (last, first)
    )
    match scheduler.config.algorithm_type:
        case "dpmsolver":
            return alpha / alpha_s
        case "sde-dpmsolver++":
            return (sigma / sigma_s) ** 2 * alpha_s / alpha
        case _:
            return sigma / sigma_s
