"""Perturbed-attention guidance together with a loss: contexts nest in any order.

python samples/pag_and_loss.py            writes pag_and_loss.png
"""

from contextlib import ExitStack

import torch
from diffusers import DiffusionPipeline

from attncontrol import Where, perturb, sprites, steer
from attncontrol.edits import SoftIdentity
from attncontrol.losses import SynGen
from attncontrol.maps.draw import grid

PROMPT, SEEDS = "a red cat and a blue frog", range(4)
MIDDLE = Where(kind="self", layers=("mid_block",))

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))


def pag():
    """Away from a prediction whose self-attention in the middle block looks only at itself."""
    return perturb(pipe, SoftIdentity(), scale=2.0, where=MIDDLE)


def loss():
    """Colours share the maps of their nouns."""
    return steer(pipe, SynGen())


rows = {}
for name, contexts in {"plain": [], "PAG": [pag], "SynGen": [loss], "both": [pag, loss]}.items():
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        rows[name] = pipe([PROMPT] * len(SEEDS), generator=generators, **sprites.call("sd")).images
grid(rows, [f"seed {seed}" for seed in SEEDS], title=PROMPT).save("pag_and_loss.png")
