"""Inversion written out from the papers, one picture at a time: oracles in float64.

``model(z, t)`` is the prediction. DDIM: a_t = alphas[t], ``final`` is that after the last step,
z_t = sqrt(a_t) x + sqrt(1 - a_t) e. Rectified flow: z_s = (1 - s) x + s e,
velocity e - x, t = 1000 s. Timesteps and sigmas fall, as a run from noise has them.
"""

import math
from itertools import pairwise


def picture_and_noise(z, m, a, kind):
    """What a prediction says of z: x and e."""
    if kind == "epsilon":
        return (z - (1 - a) ** 0.5 * m) / a**0.5, m
    return a**0.5 * z - (1 - a) ** 0.5 * m, a**0.5 * m + (1 - a) ** 0.5 * z


def levels(alphas, timesteps, final):
    """a before every step, and after the last one."""
    return [float(alphas[t]) for t in timesteps] + [float(final)]


def ddim_inverted(model, z, alphas, timesteps, final, kind="epsilon"):
    """Most noise first. The timestep is that of the latents with more noise, as in the code of
    null-text inversion; what is predicted of z is mixed anew with more noise."""
    level, path = levels(alphas, timesteps, final), [z]
    for i in range(len(timesteps) - 1, -1, -1):
        more, less, m = level[i], level[i + 1], model(z, timesteps[i])
        if kind == "epsilon":
            z = more**0.5 * (z - (1 - less) ** 0.5 * m) / less**0.5 + (1 - more) ** 0.5 * m
        else:  # z' = cos x + sin e; v at the level of t turns z by the difference of the angles
            turn = math.acos(more**0.5) - math.acos(less**0.5)
            z = (z + math.sin(turn) * m) / math.cos(turn)
        path.insert(0, z)
    return path


def ddim_step(z, m, more, less, kind="epsilon"):
    """To less noise."""
    x, e = picture_and_noise(z, m, more, kind)
    return less**0.5 * x + (1 - less) ** 0.5 * e


def flow_inverted(model, z, sigmas):
    path = [z]
    for i in range(len(sigmas) - 2, -1, -1):
        z = z + (sigmas[i] - sigmas[i + 1]) * model(z, 1000 * sigmas[i])
        path.insert(0, z)
    return path


def residuals(path):
    """d of DirectEdit: from the latents with more noise to those with less."""
    return [after - before for before, after in pairwise(path)]


def directly_retraced(model, path, step):
    """From the noise: the model sees z + d, z itself is updated."""
    z, back = path[0], [path[0]]
    for i, d in enumerate(residuals(path)):
        z = step(i, z, model(z + d, i))
        back.append(z)
    return back


def fixed_point_inverted(model, z, alphas, timesteps, final, iterations):
    """Every z solves its own DDIM step, by iteration from the z with less noise."""
    level, path = levels(alphas, timesteps, final), [z]
    for i in range(len(timesteps) - 1, -1, -1):
        more, less, guess = level[i], level[i + 1], path[0]
        for _ in range(iterations):
            m = model(guess, timesteps[i])
            clean = (path[0] - (1 - less) ** 0.5 * m) / less**0.5
            guess = more**0.5 * clean + (1 - more) ** 0.5 * m
        path.insert(0, guess)
    return path


def null_texts(told, blank, path, null, step, timesteps, scale, iterations, threshold):
    """``told(z, t)`` and ``blank(z, t, null)``, which keeps gradients; ``step(i, z, m)`` is the
    scheduler's. Returns the embeddings and where they lead."""
    z, found = path[0], []
    for i, t in enumerate(timesteps):
        text = told(z, t).detach()
        null, z = null_text(
            text, blank, z, path[i + 1], null, step, i, t, scale, iterations, threshold
        )
        found.append(null)
    return found, z


def null_text(text, blank, z, target, null, step, i, t, scale, iterations, threshold):
    """One step; ``text`` is the prediction with the prompt."""
    first = second = 0.0
    for k in range(1, iterations + 1):
        leaf = null.detach().requires_grad_()
        empty = blank(z, t, leaf)
        loss = ((step(i, z, empty + scale * (text - empty)) - target) ** 2).mean()
        loss.backward()
        first = 0.9 * first + 0.1 * leaf.grad
        second = 0.999 * second + 0.001 * leaf.grad**2
        mean, spread = first / (1 - 0.9**k), (second / (1 - 0.999**k)) ** 0.5
        null = leaf.detach() - 0.01 * (1 - i / 100) * mean / (spread + 1e-8)
        if loss.item() < threshold + 2e-5 * i:
            break
    empty = blank(z, t, null).detach()
    return null, step(i, z, empty + scale * (text - empty))


def rf_solved(model, z, sigmas):
    """The second-order Taylor step in either direction; the path in the order of ``sigmas``."""
    path = [z]
    for s, after in pairwise(sigmas):
        h = after - s
        v = model(z, 1000 * s)
        derivative = (model(z + h / 2 * v, 1000 * (s + h / 2)) - v) / (h / 2)
        z = z + h * v + h**2 / 2 * derivative
        path.append(z)
    return path


def fire_flowed(model, z, sigmas):
    path, v = [z], model(z, 1000 * sigmas[0])
    for s, after in pairwise(sigmas):
        v = model(z + (after - s) / 2 * v, 1000 * (s + after) / 2)
        z = z + (after - s) * v
        path.append(z)
    return path


def flow_edited(source, target, x, sigmas, noises, skipped):
    """FlowEdit's loop: the edit of the picture x, by the velocities of two prompts."""
    z = x
    for i, (s, after) in enumerate(pairwise(sigmas)):
        if i < skipped:
            continue
        noisy = (1 - s) * x + s * noises[i]
        moved = z + noisy - x
        z = z + (after - s) * (target(moved, 1000 * s) - source(noisy, 1000 * s))
    return z
