"""The same loss on four architectures: plain and guided pictures of the same seeds, and what each
word attends to.

    python samples/architectures.py [FOLDER]            writes architectures.png (samples/pictures)
"""

import sys
from pathlib import Path
from typing import Any

from attncontrol import sprites
from attncontrol.batch.generate import generate
from attncontrol.batch.options import load_pipeline, quiet
from attncontrol.losses import AttendAndExcite
from attncontrol.maps.draw import grid, overlay

PROMPT, WORDS, SEEDS = "a cat and a frog", ["cat", "frog"], range(3)
NAMES = {"sd": "UNet", "sd3": "SD3", "flux": "FLUX", "pixart": "PixArt"}


def main(folder: Path) -> None:
    quiet()
    rows: dict[str, list[Any]] = {}
    for model, name in sprites.MODELS.items():
        pipe = load_pipeline(model)
        pipe.set_progress_bar_config(disable=True)
        options = {"batch": len(SEEDS), **sprites.call(name)}
        jobs = [(PROMPT, seed) for seed in SEEDS]
        plain = list(generate(pipe, jobs, WORDS, **options))
        guided = list(generate(pipe, jobs, WORDS, objective=AttendAndExcite(WORDS), **options))
        rows.setdefault("plain", []).extend(picture.image for picture in plain)
        rows.setdefault("Attend-and-Excite", []).extend(picture.image for picture in guided)
        for word in WORDS:
            rows.setdefault(word, []).extend(
                overlay(picture.image, picture.maps[word]) for picture in guided
            )
    columns = [f"{name}, seed {seed}" for name in NAMES.values() for seed in SEEDS]
    grid(rows, columns, cell=128, title=f"{PROMPT}; each map from its minimum to its maximum").save(
        folder / "architectures.png"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "samples/pictures"))
