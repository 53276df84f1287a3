"""A bar of how many pictures of how many are made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attncontrol.cli.app import console


@contextmanager
def counted(title: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Gives what is told how many of how many are done."""
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(TextColumn(title), *columns, console=console) as bar:
        task = bar.add_task(title, total=total)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield progress
