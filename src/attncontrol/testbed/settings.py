"""What a folder of results was made with."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def same_settings(file: Path, settings: Mapping[str, Any], *, of: Path) -> None:
    """Writes the settings of the results ``of`` to ``file``. Raises ValueError if it holds others."""
    text = json.dumps(settings, indent=1, default=repr)
    if file.exists() and file.read_text("utf-8") != text:
        raise ValueError(f"{of} was made with other settings, {file}; choose another folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(text, "utf-8")
    part.replace(file)  # another process never sees half of it
