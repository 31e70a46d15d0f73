"""How far a pass over a data set is: a line that moves in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

_REFRESH_SECONDS, _PLAIN_SECONDS = 0.1, 10.0


@contextmanager
def progress(what: str, total: int) -> Generator[Callable[[], None]]:
    """Yield a function to call after each of `total` images; it shows the count, the rate and the time left on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    # Without a thread of its own: processes are forked meanwhile. What is printed to the same terminal goes above it.
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
    task = bar.add_task("", total=total, rate="")
    begun = shown = time.monotonic()
    done = 0

    def step() -> None:
        nonlocal done, shown
        done += 1
        now = time.monotonic()
        if now - shown < (_REFRESH_SECONDS if console.is_terminal else _PLAIN_SECONDS):
            return
        shown = now
        rate = f"{done / (now - begun):,.0f} images/s"
        if console.is_terminal:
            bar.update(task, completed=done, rate=rate, refresh=True)
        else:
            left = (total - done) * (now - begun) / done
            console.print(f"{what} {done:,}/{total:,}  {rate}  {left:.0f} s left", highlight=False)

    if not console.is_terminal:
        yield step
        return
    with bar:
        yield step
