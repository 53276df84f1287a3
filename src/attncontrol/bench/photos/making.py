"""Pictures of a batch of pairs: inverted once, then edited by any editor."""

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from attncontrol.batch.inversions import GUIDANCE, inversion
from attncontrol.batch.options import image_to_image
from attncontrol.bench.photos.methods import changes
from attncontrol.bench.photos.pairs import Pair
from attncontrol.families import family_of
from attncontrol.objectives.objective import Objective
from attncontrol.verbs.edit import edit
from attncontrol.verbs.invert import invert
from attncontrol.verbs.retrace import retrace
from attncontrol.verbs.steer import steer


@dataclass
class Cost:
    """Of a piece of work: seconds, and rows that the network read."""

    seconds: float = 0.0
    rows: int = 0


@dataclass(frozen=True)
class Edited:
    """``pictures`` and ``rebuilt``, the retraced ones, of every pair; none without an inversion."""

    pictures: list[Image.Image]
    rebuilt: list[Image.Image]
    cost: Cost


@contextmanager
def costs(pipe: Any) -> Iterator[Cost]:
    """Seconds of the processor, of the clock on other devices."""
    clock = time.process_time if pipe.device.type == "cpu" else time.perf_counter
    cost, began = Cost(), clock()

    def count(_: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        sample = next(each for each in (*given, *named.values()) if torch.is_tensor(each))
        cost.rows += len(sample)

    denoiser = family_of(pipe).denoiser(pipe)
    hook = denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield cost
    finally:
        hook.remove()
    cost.seconds = clock() - began


def inverted(
    pipe: Any, name: str, pairs: Sequence[Pair], call: Mapping[str, Any]
) -> tuple[Any, Cost]:
    """The trajectory of a batch, and what it cost."""
    own = {key: value for key, value in call.items() if key not in GUIDANCE}
    with costs(pipe) as cost:
        pictures, prompts = [pair.picture for pair in pairs], [pair.source_prompt for pair in pairs]
        trajectory = invert(pipe, pictures, prompts, method=inversion(name, call), **own)
    return trajectory, cost


def edited(
    pipe: Any, trajectory: Any, editor: str, pairs: Sequence[Pair], call: Mapping[str, Any]
) -> Edited:
    """Images 2 k retrace the trajectory, images 2 k + 1 are made of them; what new noise there is
    has the number of the pair for a seed."""
    sources = range(0, 2 * len(pairs), 2)
    targets = tuple(image + 1 for image in sources)
    prompts = [text for pair in pairs for text in (pair.source_prompt, pair.prompt)]
    generators = [torch.Generator().manual_seed(pair.number) for pair in pairs for _ in range(2)]
    with costs(pipe) as cost, ExitStack() as stack:
        stack.enter_context(retrace(pipe, trajectory, images=tuple(sources)))
        for one in changes(editor, pairs, pipe):
            steering = isinstance(one, Objective)
            stack.enter_context(steer(pipe, one, images=targets) if steering else edit(pipe, one))
        made = pipe(prompts, generator=generators, **call).images
    return Edited([made[i] for i in targets], [made[i] for i in sources], cost)


def noised(pipe: Any, editor: str, pairs: Sequence[Pair], call: Mapping[str, Any]) -> Edited:
    """SDEdit (Meng et al. 2021, arXiv 2108.01073): image to image from the picture, each with noise
    of its own."""
    strength, again = float(editor.partition("@")[2]), image_to_image(pipe)
    taken = inspect.signature(again.__call__).parameters
    generators = [torch.Generator().manual_seed(pair.number) for pair in pairs]
    prompts, pictures = [pair.prompt for pair in pairs], [pair.picture for pair in pairs]
    given = {"image": pictures, "strength": strength, "generator": generators}
    given |= {name: value for name, value in call.items() if name in taken}
    with costs(pipe) as cost:
        made = again(prompts, **given).images
    return Edited(made, [], cost)


@torch.no_grad()
def coded(pipe: Any, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """The pictures encoded and decoded by the autoencoder [height width 3]."""
    vae = pipe.vae
    pictures = np.stack([np.asarray(pair.picture) for pair in pairs])
    start = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(vae.device, vae.dtype)
    again = vae.decode(vae.encode(start / 127.5 - 1).latent_dist.mode()).sample.clamp(-1, 1)
    bits = ((again.float() + 1) * 127.5).round().byte()
    return list(bits.permute(0, 2, 3, 1).cpu().numpy())
