"""The bundled small models, their scenes, the ground-truth scorer and the bench."""

from importlib.resources import files
from pathlib import Path


def path(name: str = "sd") -> str:
    """Folder of a bundled model, for ``from_pretrained``. Raises ValueError for an unknown name."""
    weights = Path(str(files("attncontrol.testbed"))) / "weights"
    known = sorted(folder.name for folder in weights.iterdir() if folder.is_dir())
    if name not in known:
        raise ValueError(f"no bundled model is called {name!r}; there are: {', '.join(known)}")
    return str(weights / name)
