"""``.jsonl``: an entry on every line."""

import io
from collections.abc import Iterator

from attncontrol.checks.arguments import shown
from attncontrol.errors import SettingError
from attncontrol.jobs.located import Located, Mistakes
from attncontrol.jobs.values import decoded


def entries(text: str, wrong: Mistakes) -> Iterator[Located]:
    for number, line in enumerate(io.StringIO(text), 1):
        if wrong.enough:
            return
        if not line.strip():
            continue
        try:
            found = decoded(line)
        except SettingError as error:
            wrong.add(number, "", str(error))
            continue
        if isinstance(found, dict):
            yield Located(number, found.items())
        else:
            wrong.add(number, "", f'{shown(found)}: an entry is written {{"prompt": "a cat"}}')
