"""Solvers of diffusion models written out from their papers, each with changes of the latents at
the beginning of its steps: oracles in float64.

z: the latents; ``moved(z, c, t, i)``: the latents after the change at step i, where the network is
given c z; ``predict(x, t)``: its output, noise or (flow) noise less picture. ``s`` is read for its
tables alone: timesteps, sigmas and, where they are those of the model, alphas_cumprod. Every
function returns the latents at the end.

Of solvers that look back to latents before a change (UniPC, SA, single-step DPM++) the change d at
time t moves the whole trajectory: what is corrected is moved by d afterwards, and the start of a
block of evaluations by what becomes d at t without the network's answer.
"""

import itertools
import math

import torch

INFINITY = float("inf")


def one_by_one(s, z, predict, moved, **noise):
    """Solvers that are affine in the latents they are given: by their own steps."""
    for i, t in enumerate(s.timesteps):
        c = 1.0
        if hasattr(s, "scale_model_input"):
            c = float(s.scale_model_input(torch.ones(1, dtype=z.dtype), t))
        z = moved(z, c, t, i)
        z = s.step(predict(c * z, t), t, z, **noise, return_dict=False)[0]
    return z


# Several evaluations in a step


def heun(s, z, predict, moved):
    """Karras et al., arXiv 2206.00364, algorithm 1: trapezoids in sigma."""
    sigmas, times = _ends(s), [s.timesteps[0], *s.timesteps[1::2]]
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        z = moved(z, _c(a), times[i], i)
        first = predict(_c(a) * z, times[i])
        there = z + (b - a) * first
        if b:
            first = (first + predict(_c(b) * there, times[i + 1])) / 2
        z = z + (b - a) * first
    return z


def flow_heun(s, z, predict, moved):
    """The same of rectified flow: the network gives the derivative and takes z."""
    sigmas, times = _ends(s), [s.timesteps[0], *s.timesteps[1::2]]
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        z = moved(z, 1.0, times[i], i)
        first = predict(z, times[i])
        if b:
            first = (first + predict(z + (b - a) * first, times[i + 1])) / 2
        z = z + (b - a) * first
    return z


def kdpm2(s, z, predict, moved, generator=None):
    """DPM-Solver-2 in sigma (Karras et al., algorithm 3): the derivative at the geometric mean of
    the ends; with a generator its ancestral form, which steps to sigma_down and adds noise."""
    sigmas, times = _ends(s), s.timesteps
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        up = b * math.sqrt(a * a - b * b) / a if generator else 0.0
        down = math.sqrt(b * b - up * up)
        z = moved(z, _c(a), times[2 * i], i)
        derivative = predict(_c(a) * z, times[2 * i])
        if b:
            middle = math.sqrt(a * down)
            derivative = predict(_c(middle) * (z + (middle - a) * derivative), times[2 * i + 1])
        z = z + (down - a) * derivative
        if generator and b:
            z = z + up * torch.randn(z.shape, generator=generator, dtype=z.dtype)
    return z


def dpm_sde(s, z, predict, moved, noise):
    """DPM-Solver++ (SDE) of two evaluations in sigma, as in k-diffusion: both stages go from the
    beginning of the step, with the pictures at it and at its middle in log sigma. ``noise(a, b)``
    is the increment of the Brownian motion, of unit variance."""
    sigmas, times = _ends(s), s.timesteps
    for i, (a, b) in enumerate(itertools.pairwise(sigmas)):
        z = moved(z, _c(a), times[2 * i], i)
        picture = z - a * predict(_c(a) * z, times[2 * i])
        if not b:
            return picture
        middle = math.sqrt(a * b)
        there = _ancestral(z, picture, a, middle, noise)
        picture = there - middle * predict(_c(middle) * there, times[2 * i + 1])
        z = _ancestral(z, picture, a, b, noise)
    return z


def _ancestral(z, picture, a, b, noise):
    up = min(b, b * math.sqrt(a * a - b * b) / a)
    down = math.sqrt(b * b - up * up)
    return down / a * z + (1 - down / a) * picture + up * noise(a, b)


def runge_kutta_pndm(s, z, predict, moved):
    """Liu et al., arXiv 2202.09778: three steps of Runge-Kutta, then four-step Adams."""
    times, alphas, kept = list(map(int, s.timesteps)), s.alphas_cumprod.double(), []
    gap = s.config.num_train_timesteps // s.num_inference_steps

    def transfer(z, noise, t, to):
        a, b = alphas[t], alphas[to] if to >= 0 else s.final_alpha_cumprod.double()
        below = a.sqrt() * (((1 - b) * a).sqrt() + ((1 - a) * b).sqrt())
        return (b / a).sqrt() * z - (b - a) / below * noise

    for i in range(3):
        start, middle, end = times[4 * i], times[4 * i + 1], times[4 * i + 3]
        z = moved(z, 1.0, s.timesteps[4 * i], i)
        e1 = predict(z, s.timesteps[4 * i])
        e2 = predict(transfer(z, e1, start, middle), s.timesteps[4 * i + 1])
        e3 = predict(transfer(z, e2, start, middle), s.timesteps[4 * i + 2])
        e4 = predict(transfer(z, e3, start, end), s.timesteps[4 * i + 3])
        kept.append(e1)
        z = transfer(z, (e1 + 2 * e2 + 2 * e3 + e4) / 6, start, end)
    for i, t in enumerate(s.timesteps[12:], 3):
        z = moved(z, 1.0, t, i)
        kept.append(predict(z, t))
        e = (55 * kept[-1] - 59 * kept[-2] + 37 * kept[-3] - 9 * kept[-4]) / 24
        z = transfer(z, e, int(t), int(t) - gap)
    return z


# Older latents


def singlestep(s, z, predict, moved, *, orders, kind="data", generator=None):
    """DPM-Solver(++), arXiv 2206.00927 and 2211.01095, of blocks of one to three evaluations;
    ``orders`` has 1, 2 or 3 for every evaluation, by its place in a block. With a generator its
    stochastic form, whose noise is drawn anew from the start of the block to every evaluation."""
    levels = [_level(float(sigma)) for sigma in s.sigmas]
    start, outputs = z, []
    for i, (t, order) in enumerate(zip(s.timesteps, orders, strict=True)):
        alpha, sigma, lam = levels[i]
        before, z = z, moved(z, 1.0, t, i)
        begin = i - order + 1
        if order == 1:
            start, outputs = z, []
        else:  # the beginning moves by what becomes the change here
            a_s, s_s, l_s = levels[begin]
            carried = alpha / a_s if kind == "noise" else sigma / s_s
            if generator:
                carried *= math.exp(-(lam - l_s))
            start = start + (z - before) / carried
        noise = predict(z, t)
        outputs.append(noise if kind == "noise" else (z - sigma * noise) / alpha)
        z = _block(start, outputs, levels[begin : i + 2], kind, generator)
    return z


def _block(start, outputs, levels, kind, generator):
    """From the first to the last of ``levels``, by the outputs at all between."""
    (a_s, s_s, l_s), (a_t, s_t, l_t) = levels[0], levels[-1]
    h = l_t - l_s
    if kind == "noise":
        base, scale, grown = a_t / a_s, s_t, math.expm1(h)
        first, second = -scale * grown, -scale * (grown / h - 1)
    elif generator:
        base, scale, grown = s_t / s_s * math.exp(-h), a_t, -math.expm1(-2 * h)
        first, second = scale * grown, None
    else:
        base, scale, grown = s_t / s_s, a_t, math.expm1(-h)
        first = -scale * grown
        second = scale * (grown / h + 1) if h < INFINITY else 0.0
    z = base * start + first * outputs[0]
    if len(outputs) > 1:
        slope = (outputs[-1] - outputs[0]) * h / (levels[-2][2] - l_s)
        z = z + (first / 2 if len(outputs) == 2 else second) * slope
    if generator:
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        z = z + s_t * math.sqrt(-math.expm1(-2 * h)) * noise
    return z


def unipc(s, z, predict, moved, *, flow=False):
    """UniPC, arXiv 2302.04867, of order 2, B(h) = exp(-h) - 1, in terms of the picture: every
    evaluation but the first corrects the latents that it was made at, then moved again."""
    levels = [_level(float(sigma), flow) for sigma in s.sigmas]
    pictures, order, start = [], 1, z
    for i, t in enumerate(s.timesteps):
        before, z = z, moved(z, 1.0, t, i)
        alpha, sigma, lam = levels[i]
        output = predict(z, t)
        picture = z - sigma * output if flow else (z - sigma * output) / alpha
        if i:
            older = [] if order == 1 else [(pictures[-2], levels[i - 2][2])]
            points = [*older, (picture, lam)]
            z = _unified(start, pictures[-1], points, levels[i - 1], levels[i], order) + z - before
        order = min(2, i + 1, len(s.timesteps) - i)
        older = [(pictures[-1], levels[i - 1][2])] if order == 2 else []
        pictures.append(picture)
        start, z = z, _unified(z, picture, older, levels[i], levels[i + 1], order)
    return z


def _unified(z, picture, points, begin, end, order):
    """One UniP or UniC update: equation (9), whose weights solve its system (5)."""
    (_, s_s, l_s), (a_t, s_t, l_t) = begin, end
    h = l_t - l_s
    grown = math.expm1(-h)
    result = s_t / s_s * z - a_t * grown * picture
    if not points:
        return result
    ratios = torch.tensor([(lam - l_s) / h for _, lam in points], dtype=torch.float64)
    if len(points) == 1:  # either form: one half, as in the paper
        weights = torch.tensor([0.5], dtype=torch.float64)
    else:
        phi2 = grown / -h - 1
        phi3 = phi2 / -h - 0.5
        wanted = torch.tensor([phi2, 2 * phi3], dtype=torch.float64) / grown
        rows = torch.stack([ratios**k for k in range(order)])
        weights = torch.linalg.solve(rows, wanted)
    for weight, ratio, (other, _) in zip(weights, ratios, points, strict=True):
        result = result - a_t * grown * weight * (other - picture) / ratio
    return result


def sa(s, z, predict, moved, *, tau, generator):
    """SA-Solver, arXiv 2309.05019, predictor and corrector of order 2 in terms of the picture;
    k = 1 + tau^2, second-order terms by their first power of h, as in its code."""
    levels = [_level(float(sigma)) for sigma in s.sigmas]
    pictures, begun = [], None
    for i, t in enumerate(s.timesteps):
        before, z = z, moved(z, 1.0, t, i)
        alpha, sigma, lam = levels[i]
        picture = (z - sigma * predict(z, t)) / alpha
        if begun is not None:
            start, noise, k = begun
            h = lam - levels[i - 1][2]
            slope = (picture - pictures[-1]) / h
            corrected = _stochastic(start, pictures[-1], slope, noise, levels[i - 1 : i + 1], k)
            z = corrected + z - before
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        slope = 0.0
        if pictures and i < len(s.timesteps) - 1:
            slope = (picture - pictures[-1]) / (lam - levels[i - 1][2])
        pictures.append(picture)
        begun = z, noise, 1 + tau(int(t)) ** 2
        z = _stochastic(z, picture, slope, noise, levels[i : i + 2], begun[2])
    return z


def _stochastic(z, picture, slope, noise, levels, k):
    (_, s_s, l_s), (a_t, s_t, l_t) = levels
    h = l_t - l_s
    z = s_t / s_s * math.exp(-(k - 1) * h) * z - a_t * math.expm1(-k * h) * picture
    z = z + a_t * k * h * h / 2 * slope
    return z + s_t * math.sqrt(-math.expm1(-2 * (k - 1) * h)) * noise


def _ends(s):
    """The noise levels at the ends of steps, with 0 at the end, where tables have most twice."""
    levels = [float(s.sigmas[0]), *map(float, s.sigmas[1::2])]
    return levels[: levels.index(0.0) + 1]


def _c(sigma):
    """The scale of the network's input where latents are picture + sigma noise."""
    return 1 / math.sqrt(sigma * sigma + 1)


def _level(sigma, flow=False):
    """alpha, sigma and log(alpha / sigma) of latents that keep their variance, or of a flow."""
    alpha, sigma = (1 - sigma, sigma) if flow else (_c(sigma), sigma * _c(sigma))
    return alpha, sigma, math.log(alpha / sigma) if sigma else INFINITY
