"""Pages that need neither network nor server: template, style and scripts in one text."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from attncontrol.inspector.quantise import text

_BASE = "attncontrol.inspector"  # whose base.css all pages have


def rendered(package: str, *, scripts: Mapping[str, str], **values: Any) -> str:
    """HTML of the template of a package, with its style and these scripts in it; ``values`` are
    escaped."""
    environment = Environment(
        loader=PackageLoader(package, "template"), autoescape=True, undefined=StrictUndefined
    )
    styles = ((_BASE, "base.css"), (package, "style.css"))
    return environment.get_template("page.html.j2").render(
        style="\n".join(_template(of).joinpath(name).read_text("utf-8") for of, name in styles),
        imports=json.dumps({"imports": dict(scripts)}),
        **values,
    )


def scripts_of(package: str, *names: str) -> dict[str, str]:
    """Scripts of a package, all or these, by the names under which they import each other, such as
    "inspector/dom"."""
    found = {
        file.name.removesuffix(".js"): file.read_text("utf-8")
        for file in _template(package).iterdir()
        if file.name.endswith(".js")
    }
    folder = package.rpartition(".")[2]
    return {
        f"{folder}/{name}": uri(source.encode(), "text/javascript")
        for name, source in sorted(found.items())
        if not names or name in names
    }


def is_made(file: Path, generator: str) -> bool:
    """Whether it is a page that says so."""
    try:
        with file.open("rb") as stream:
            return f'<meta name="generator" content="{generator}">'.encode() in stream.read(1000)
    except OSError:
        return False


def uri(data: bytes, media: str) -> str:
    return f"data:{media};base64,{text(data)}"


def _template(package: str) -> Any:
    return files(package).joinpath("template")
