"""Steering under every solver: against written-out loops in float64, by denoising step where a step
has several evaluations, and no change lost."""

import copy
import functools

import diffusers
import pytest
import torch

from attncontrol import Descent, Where, steer
from tests.kit.sd import LAYER, Reference
from tests.kit.tiny import tiny_sd
from tests.reference import solvers as by_hand

PROMPTS = ["a cat and a turtle", "a cat with a frog"]
CAT, STEPS, FEW = 2, 6, 4
DESCENT = Descent(step_size=60.0, thresholds={}, guided=0.7)


def less_cat(maps):
    return maps.mean()[..., CAT].flatten(1).mean(1)


def made(name, pipe, **options):
    """A scheduler with the noise of the model, its tables in float64."""
    scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options)
    if hasattr(scheduler, "alphas_cumprod"):
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    own = scheduler.set_timesteps

    @functools.wraps(own)
    def in_double(*args, **kwargs):
        own(*args, **kwargs)
        for table in ("sigmas", "sigmas_interpol", "sigmas_up", "sigmas_down"):
            if hasattr(scheduler, table):
                setattr(scheduler, table, getattr(scheduler, table).double())

    scheduler.set_timesteps = in_double
    return scheduler


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


LATENTS = noise(2, 4, 4, 8)


def run(pipe, steps=STEPS, **call):
    generator = torch.Generator().manual_seed(5)
    return pipe(
        PROMPTS, latents=LATENTS.clone(), height=32, width=64, num_inference_steps=steps,
        output_type="latent", generator=generator, guidance_scale=3.0, **call,
    ).images  # fmt: skip


@pytest.fixture(scope="module")
def shared():
    pipe = tiny_sd()
    return pipe, pipe.scheduler


@pytest.fixture
def sd(shared):
    pipe, pipe.scheduler = shared
    return pipe


class Network:
    """The tiny UNet under guidance, and how the attention to the cat moves latents."""

    def __init__(self, pipe, total):
        self.pipe, self.total = pipe, total
        self.cond, self.uncond = pipe.encode_prompt(PROMPTS, "cpu", 1, True)

    def predict(self, x, t):
        both = torch.cat([self.uncond, self.cond])
        uncond, cond = self.pipe.unet(torch.cat([x, x]), t, both).sample.chunk(2)
        return uncond + 3.0 * (cond - uncond)

    def moved(self, z, c, t, i):
        if i >= int(0.7 * self.total):
            return z
        with torch.enable_grad(), Reference(self.pipe, LAYER) as maps:
            x = (c * z).detach().requires_grad_()
            self.pipe.unet(x, t, self.cond)
            loss = maps[0].mean(1)[..., CAT].mean(1).sum()
            (gradient,) = torch.autograd.grad(loss, x)
        return z - DESCENT.alpha(i, self.total, 60.0) * gradient / c


def tau(t):
    return 1.0 if 200 <= t <= 800 else 0.0


def generator():
    return torch.Generator().manual_seed(5)


def of_sde(s, *args):
    return by_hand.dpm_sde(s, *args, noise=lambda a, b: s.noise_sampler(a, b))


def singlestep(**how):
    return lambda *args: by_hand.singlestep(*args, **how)


SINGLE, SA = "DPMSolverSinglestepScheduler", "SASolverScheduler"
SOLVERS = {
    "heun": ("HeunDiscreteScheduler", {}, by_hand.heun),
    "kdpm2": ("KDPM2DiscreteScheduler", {}, by_hand.kdpm2),
    "kdpm2-ancestral": (
        "KDPM2AncestralDiscreteScheduler", {}, lambda *a: by_hand.kdpm2(*a, generator())
    ),
    "dpm-sde": ("DPMSolverSDEScheduler", {"noise_sampler_seed": 1}, of_sde),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": False}, by_hand.runge_kutta_pndm),
    "unipc": ("UniPCMultistepScheduler", {}, by_hand.unipc),
    "sa": (SA, {}, lambda *a: by_hand.sa(*a, tau=tau, generator=generator())),
    "single-2": (SINGLE, {}, singlestep(orders=(1, 2, 1, 2, 1, 1))),
    "single-3": (SINGLE, {"solver_order": 3}, singlestep(orders=(1, 2, 3, 1, 2, 1))),
    "single-noise": (
        SINGLE, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        singlestep(orders=(1, 2, 1, 2, 1, 2), kind="noise"),
    ),
    "single-sde": (
        SINGLE, {"algorithm_type": "sde-dpmsolver++"},
        lambda *a: by_hand.singlestep(*a, orders=(1, 2, 1, 2, 1, 1), generator=generator()),
    ),
}  # fmt: skip
STEPWISE = (
    "DDPMScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler", "DEISMultistepScheduler",
    "EulerAncestralDiscreteScheduler", "LCMScheduler", "TCDScheduler", "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler", "IPNDMScheduler",
)  # fmt: skip
for _name in STEPWISE:
    SOLVERS[_name] = (_name, {}, by_hand.one_by_one)
STOCHASTIC = {
    "DDPMScheduler", "DDPMParallelScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler",
}  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Should have"
)
@pytest.mark.parametrize("kind", SOLVERS)
def test_steered_latents_are_those_of_a_written_out_loop(sd, kind):
    (name, options, solver), steps = SOLVERS[kind], FEW if kind in STEPWISE else STEPS
    if kind == "dpm-sde":
        pytest.importorskip("torchsde")
    sd.scheduler = made(name, sd, **options)
    with steer(sd, less_cat, where=Where(layers=(LAYER,)), descent=DESCENT) as trace:
        steered = run(sd, steps)
    assert [step.index for step in trace.steps] == list(range(int(0.7 * steps)))
    s, sampler = sd.scheduler, getattr(sd.scheduler, "noise_sampler", None)
    s.set_timesteps(steps)
    s.noise_sampler = sampler
    network = Network(sd, steps)
    more = {"generator": generator()} if kind in STOCHASTIC else {}
    more |= {"eta": 0.0} if kind == "TCDScheduler" else {}
    with torch.no_grad():
        z = LATENTS * float(s.init_noise_sigma)
        expected = solver(s, z, network.predict, network.moved, **more)
    assert min(min(step.moves) for step in trace.steps) > 1e-3
    assert (steered - expected).abs().max() < 1e-6 * expected.abs().max()


AFFINE = (
    *STEPWISE, "DDIMScheduler", "EulerDiscreteScheduler", "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", AFFINE)
def test_these_solvers_take_the_whole_change_in_every_step(sd, name):
    """The latents after a step move by a multiple of the change, the network's answer apart."""
    s = made(name, sd)
    s.set_timesteps(FEW)
    z, change = LATENTS, noise(*LATENTS.shape[1:])
    for t in s.timesteps[:-1]:
        if hasattr(s, "scale_model_input"):
            s.scale_model_input(z, t)
        drawn = name in {*STOCHASTIC, "TCDScheduler", "FlowMatchLCMScheduler"}
        one, two = ({"generator": generator()} if drawn else {} for _ in range(2))
        other = copy.deepcopy(s).step(z.sin(), t, z + change, **one, return_dict=False)[0]
        z = s.step(z.sin(), t, z, **two, return_dict=False)[0]
        factor = ((other - z) / change).flatten()
        assert factor.mean() > 0.02
        assert factor.std() < 1e-3 * factor.mean()
