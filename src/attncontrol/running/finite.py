"""Predictions that are NaN or infinite, and where that begins."""

from dataclasses import replace

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.errors import NonFiniteError
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.contexts import Contexts
from attncontrol.running.wiring import Pass


def require_finite(prediction: Tensor, contexts: Contexts, call: DenoiserCall, one: Pass) -> None:
    """Raises NonFiniteError. Only then the pass ``one`` runs again, to find the place."""
    if prediction.isfinite().all():
        return
    count = len(call.images)
    wrong = [b for b in call.branches if not prediction[call.rows(b)].isfinite().all()]
    rows = prediction.isfinite().flatten(1).all(1).tolist()
    images = sorted({call.images[row % count] for row, right in enumerate(rows) if not right})
    kind = "" if one.purpose == "own" else f" of the {one.purpose} pass"
    raise NonFiniteError(
        f"the prediction{kind} is NaN or infinite at step {call.step.index} (timestep "
        f"{call.step.timestep:g}) in the branches {wrong} of image(s) {images}: "
        f"{_origin(contexts, call, one)}. Look at the edits and their scale, or run the model in "
        "float32"
    )


def _origin(contexts: Contexts, call: DenoiserCall, one: Pass) -> str:
    sites = {site.name: site for site in contexts.family.sites(contexts.denoiser)}
    found: list[str] = []

    def listen(attention: AttentionCall, _: Moment) -> Tensor:
        output = attention.run()
        if not found and not output.isfinite().all():
            given = all(
                t.isfinite().all() for t in (attention.query, attention.key, attention.value)
            )
            how = "its queries, keys and values are finite" if given else "so are its inputs"
            found.append(f"attention at {attention.site.name} is the first that is, {how}")
        return output

    wiring, again = contexts.wiring, replace(one, listeners=((sites, listen),))
    with torch.no_grad(), wiring.wrapping(contexts.denoiser, sites), wiring.running(again):
        contexts.denoiser.forward(**call.arguments)
    return found[0] if found else "all attention is finite, what follows it is not"
