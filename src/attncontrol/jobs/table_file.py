"""``.csv``: a header of names of fields, an entry in every row."""

import csv
import io
from collections.abc import Iterator, Sequence

from attncontrol.errors import SettingError
from attncontrol.jobs.forms import cell
from attncontrol.jobs.located import Located, Mistakes


def entries(text: str, wrong: Mistakes) -> Iterator[Located]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while not wrong.enough:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            wrong.add(number, "", f"no CSV: {error}")
            return
        if not any(map(str.strip, row)):
            continue
        if header is None:
            header = [name.strip() for name in row]
            if not _is_header(header, number, wrong):
                return
        elif len(row) != len(header):
            wrong.add(
                number, "",
                f"{len(row)} cells, and the header names {len(header)}; quote a cell with commas: "
                '"a cat, a frog"',
            )  # fmt: skip
        else:
            yield _entry(number, header, row, wrong)


def _is_header(names: Sequence[str], line: int, wrong: Mistakes) -> bool:
    twice = next((name for name in names if names.count(name) > 1), None)
    if "" in names:
        wrong.add(line, "", f"column {names.index('') + 1} has no name")
    elif twice:
        wrong.add(line, twice, "the header names it twice")
    elif not set(names) & {"prompt", "prompts"}:
        hint = "; separate columns by commas" if len(names) == 1 else ""
        wrong.add(line, "", f"the header names no column prompt{hint}")
    else:
        return True
    return False


def _entry(line: int, header: Sequence[str], row: Sequence[str], wrong: Mistakes) -> Located:
    """Without the fields whose cells are empty."""
    found = Located(line)
    for name, text in zip(header, row, strict=True):
        if text.strip():
            try:
                found[name] = cell(name, text.strip())
            except SettingError as error:
                wrong.add(line, name, str(error))
    return found
