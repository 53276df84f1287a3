"""Sampling with three predictions for every picture, as in InstructPix2Pix (Brooks et al. 2022,
arXiv 2211.09800, eq. 3), from the paper: oracles in float64.

    e = e(0, 0) + s_I (e(c_I, 0) - e(0, 0)) + s_T (e(c_I, c_T) - e(c_I, 0))

c_I: the given picture; c_T: the text; x = c z is what the network sees of the latents z.
"""


def sampled(scheduler, predict, z, *, text, picture, change=None, more=None):
    """Latents after all steps. ``predict(x, t, branch)``; ``text`` and ``picture`` are s_T and s_I;
    ``change(i, x, t)`` is added to x before a step, ``more(x, t, cond)`` to e."""
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z
        if change is not None:
            moved = change(i, x, t)
            x, z = x + moved, z + moved / float((x / z).flatten()[0])
        both, alone, nothing = (predict(x, t, b) for b in ("cond", "reference", "uncond"))
        e = nothing + picture * (alone - nothing) + text * (both - alone)
        if more is not None:
            e = e + more(x, t, both)
        z = scheduler.step(e, t, z, return_dict=False)[0]
    return z
