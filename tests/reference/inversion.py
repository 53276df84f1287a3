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
