"""Move a thing to the other side, the rest stays: DesignEdit, with a box around the thing.

python samples/move.py            writes edit-move.png
"""

import torch
from diffusers import DiffusionPipeline

from attncontrol import edit, sprites
from attncontrol.edits import Move
from attncontrol.maps.draw import boxed, grid
from attncontrol.sprites.scorer import detect

PROMPT, SEEDS, SIZE = "a cat", range(8), 128

pipe, rows = DiffusionPipeline.from_pretrained(sprites.path("sd")), {"source": [], "edited": []}
again = [torch.Generator().manual_seed(seed) for seed in SEEDS]
plain = pipe([PROMPT] * len(SEEDS), generator=again, **sprites.call("sd")).images
for seed, found in zip(SEEDS, detect(plain), strict=True):
    left, top, width, height = found[0].box if found else (32, 32, 64, 64)
    edges = left - 6, top - 6, left + width + 6, top + height + 6
    box = tuple(min(max(edge / SIZE, 0.0), 1.0) for edge in edges)
    by = (0.3 if box[0] + box[2] < 1 else -0.3, 0.0)
    same = [torch.Generator().manual_seed(seed) for _ in range(2)]
    with edit(pipe, Move(box, by=by)):
        source, moved = pipe([PROMPT] * 2, generator=same, **sprites.call("sd")).images
    rows["source"].append(boxed(source, {"cat": box}))
    rows["edited"].append(moved)
grid(rows, [f"seed {seed}" for seed in SEEDS], cell=112, title=PROMPT).save("edit-move.png")
