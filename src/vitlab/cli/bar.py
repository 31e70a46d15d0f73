"""How far a pass over images is: a line that moves in a terminal, plain lines now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

_REFRESH_SECONDS, _PLAIN_SECONDS = 0.1, 10.0


@contextmanager
def bar(doing: str) -> Generator[Callable[[int, int], None]]:
    """Show on standard error how many images of how many are done, the rate and the time left; give a function that takes both."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, begun = Console(stderr=True, soft_wrap=True), time.monotonic()
    shown, terminal = begun, console.is_terminal
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    # Without a thread of its own: processes are forked meanwhile. What is printed to the same terminal goes above it.
    progress = Progress(
        *columns,
        console=console,
        disable=not terminal,
        transient=True,
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),
    )
    with progress:
        task = progress.add_task("", total=None, rate="")

        def advance(done: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < (_REFRESH_SECONDS if terminal else _PLAIN_SECONDS):
                return
            shown, rate = now, f"{done / (now - begun):,.0f} images/s"
            if terminal:
                progress.update(task, completed=done, total=total, rate=rate, refresh=True)
            else:
                left = (total - done) * (now - begun) / done
                console.print(f"{doing} {done:,} of {total:,} images, {rate}, {left:.0f} s left", highlight=False)

        yield advance
