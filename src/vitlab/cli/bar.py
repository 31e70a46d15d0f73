"""How far work is: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

_REFRESH_SECONDS, _PLAIN_SECONDS = 0.1, 10.0


@contextmanager
def bar(doing: str, things: str) -> Generator[Callable[[int, int], None]]:
    """Show on standard error how many `things` of how many are done; give a function that takes both."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, begun = Console(stderr=True, soft_wrap=True), time.monotonic()
    shown = begun
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(things), TimeRemainingColumn())
    # Without a thread of its own: processes are forked meanwhile.
    terminal = console.is_terminal
    with Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not terminal) as progress:
        task = progress.add_task("", total=None)

        def advance(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < (_REFRESH_SECONDS if terminal else _PLAIN_SECONDS):
                return
            shown = now
            if terminal:
                progress.update(task, completed=done, total=total, refresh=True)
            else:
                left = (total - done) * (now - begun) / done
                console.print(f"{doing} {done:,} of {total:,} {things}, {left:.0f} s left", highlight=False)

        yield advance
