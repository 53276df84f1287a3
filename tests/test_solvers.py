"""Steering under every solver: against written-out loops in float64, by denoising step where a step
has several evaluations, and no change lost."""

import copy
import functools

import diffusers
import pytest
import torch

from attncontrol import Descent, Where, steer
from attncontrol.attention.edit import Edit
from attncontrol.verbs.edit import edit
from tests.kit.sd import LAYER, Reference
from tests.kit.tiny import tiny_sd
from tests.kit.zoo import sd3
from tests.reference import solvers as by_hand
from tests.reference.loops import Softmax

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


# Flows


FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
FLOWS = {
    "heun": ("FlowMatchHeunDiscreteScheduler", {}, by_hand.flow_heun),
    "lcm": ("FlowMatchLCMScheduler", {}, by_hand.one_by_one),
    "unipc": ("UniPCMultistepScheduler", FLOW, functools.partial(by_hand.unipc, flow=True)),
}


@pytest.fixture(scope="module")
def flow():
    return sd3()


@pytest.mark.parametrize("kind", FLOWS)
def test_steered_latents_of_flows(flow, kind, monkeypatch):
    (name, options, solver), steps, latents = FLOWS[kind], FEW, noise(2, 4, 4, 8)
    flow.scheduler = made(name, flow, **options)
    call = {"height": 32, "width": 64, "num_inference_steps": steps, "max_sequence_length": 16}
    call |= {"output_type": "latent", "guidance_scale": 1.0}
    where = Where(kind="joint")
    with steer(flow, less_cat, where=where, descent=DESCENT) as trace:
        torch.manual_seed(5)  # this pipeline gives its scheduler no generator
        steered = flow(PROMPTS, latents=latents.clone(), **call).images
    assert [step.index for step in trace.steps] == list(range(int(0.7 * steps)))
    softmax, cells, third = Softmax(monkeypatch), 8, 3  # the axis leaves out the start of the text
    states, _, pooled, _ = flow.encode_prompt(PROMPTS, None, None, max_sequence_length=16)

    def predict(x, t):
        softmax.seen.clear()
        return flow.transformer(
            x, timestep=t.expand(2), encoder_hidden_states=states, pooled_projections=pooled,
            return_dict=False,
        )[0]  # fmt: skip

    def moved(z, _, t, i):
        if i >= int(0.7 * steps):
            return z
        with torch.enable_grad():
            x = z.detach().requires_grad_()
            predict(x, t)
            maps = torch.stack([of[:, :, :cells, cells + third] for of in softmax.seen])
            (gradient,) = torch.autograd.grad(maps.mean((0, 2, 3)).sum(), x)
        return z - DESCENT.alpha(i, steps, 60.0) * gradient

    flow.scheduler.set_timesteps(steps)
    torch.manual_seed(5)
    with torch.no_grad():
        expected = solver(flow.scheduler, latents, predict, moved)
    assert min(min(step.moves) for step in trace.steps) > 1e-3
    assert (steered - expected).abs().max() < 1e-6 * expected.abs().max()


# Edits


class Nudge(Edit):
    """Adds 0.3 to the latents after the second step."""

    def __call__(self, call, _now):
        return call

    def stepped(self, latents, now):
        return latents + 0.3 if now.step.index == 1 else latents


@pytest.mark.parametrize("kind", ["unipc", "sa", "single-2", "heun"])
def test_changes_of_edits_are_kept(sd, kind):
    name, options, solver = SOLVERS[kind]
    sd.scheduler = made(name, sd, **options)
    with edit(sd, Nudge(), where=Where(layers=(LAYER,))):
        edited = run(sd)
    s, network = sd.scheduler, Network(sd, STEPS)
    s.set_timesteps(STEPS)
    with torch.no_grad():
        z = LATENTS * float(s.init_noise_sigma)
        expected = solver(s, z, network.predict, lambda z, _c, _t, i: z + 0.3 * (i == 2))
    assert (edited - expected).abs().max() < 1e-6 * expected.abs().max()
