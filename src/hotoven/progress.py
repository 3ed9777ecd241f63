"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Stage:
    """One part of a run whose progress is shown; made by `stage`."""

    def __init__(self, title: str, total: int, bar: Progress | None) -> None:
        self._title, self._total, self._bar = title, total, bar
        self._task = bar.add_task(title, total=total, note="") if bar else None
        self._start = time.monotonic()

    def show(self, done: int, note: str = "") -> None:
        """Shows that `done` of the total is done, with a few words beside it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        seconds = time.monotonic() - self._start
        words = f"  {note}" if note else ""
        tell(f"{self._title}: {done}/{self._total} ({seconds:.0f} s){words}")


def tell(line: str) -> None:
    """Writes a line to standard error, at once: `print` would write its end apart.

    What another thread says last, when Ctrl-C comes, then has a line of its own.
    """
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextmanager
def stage(title: str, total: int) -> Iterator[Stage]:
    """A stage named `title` of `total` units, shown on standard error until the block ends."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Stage(title, total, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Stage(title, total, bar)
