"""``.jsonl``: an entry on every line; ``.txt``: a prompt."""

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


def prompts(text: str, wrong: Mistakes) -> Iterator[Located]:
    """Of a ``.txt``: one a line; empty lines and comments, "# " and what follows, are none."""
    for number, line in enumerate(io.StringIO(text), 1):
        prompt = line.strip()
        if prompt.startswith("#") and not prompt.startswith(("# ", "##")) and prompt != "#":
            wrong.add(number, "", "a comment begins with '# ', a prompt does not begin with #")
        elif prompt and not prompt.startswith("#"):
            yield Located(number, [("prompt", prompt)])
