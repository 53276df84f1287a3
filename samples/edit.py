"""Edit attention in the pipeline's own pass: one picture, three changes of it.

reweight   "red" counts three times as much (Prompt-to-Prompt)
replace    the cat of the first prompt becomes a dog where the cat was (Prompt-to-Prompt)
mutual     the picture of the second prompt takes colours and ground from the first (MasaCtrl)

The first picture of a batch is the source: it stays as it is, bit for bit.

    python samples/edit.py            writes edit.png
"""

import torch
from diffusers import DiffusionPipeline

from attncontrol import edit, sprites
from attncontrol.edits import MutualAttention, Replace, Reweight
from attncontrol.maps.draw import grid

SOURCE, TARGET, SEEDS = "a red cat and a frog", "a red dog and a frog", range(4)

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))


def generate(prompts, seed):
    """The same noise for every prompt."""
    generators = [torch.Generator().manual_seed(seed) for _ in prompts]
    return pipe(prompts, generator=generators, **sprites.call("sd")).images


rows = {name: [] for name in ("source", "target", "reweight", "replace", "mutual")}
for seed in SEEDS:
    source, target = generate([SOURCE, TARGET], seed)
    rows["source"].append(source)
    rows["target"].append(target)
    with edit(pipe, Reweight({"red": 3.0})):
        rows["reweight"] += generate([SOURCE], seed)
    for name, change in {"replace": Replace(), "mutual": MutualAttention()}.items():
        with edit(pipe, change):
            rows[name].append(generate([SOURCE, TARGET], seed)[1])
columns, title = [f"seed {seed}" for seed in SEEDS], f"{SOURCE} / {TARGET}"
grid(rows, columns, cell=128, title=title).save("edit.png")
