"""A bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

PLAIN_SECONDS = 10.0


@contextmanager
def bar(doing: str, things: str) -> Generator[Callable[[int, int], None]]:
    """Show how many `things` of how many are done; give a function that takes both."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, last = Console(stderr=True, soft_wrap=True), time.monotonic()
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(things), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def advance(done: int, total: int) -> None:
            nonlocal last
            progress.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - last > PLAIN_SECONDS:
                last = time.monotonic()
                console.print(f"{doing} {done:,} of {total:,} {things}", highlight=False)

        yield advance
