"""Watchers: a line that moves in a terminal, plain lines elsewhere, or nothing."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vitlab.train.step import StepResult

SHOWN = (("map", "mAP"), ("top1", "top-1"))
"""What is printed of an evaluation besides the loss, the first that it has."""
PLAIN_SECONDS = 10.0
"""How often a log that is no terminal gets a line."""


class Quiet:
    """Watches without a word."""

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Do nothing."""

    def stepped(self, step: int, result: StepResult) -> None:
        """Do nothing."""

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def saved(self, step: int, seconds: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Terminal:
    """Shows step, loss, images a second and the time left; `brief` leaves out the evaluations."""

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        self._console = console
        self._brief = brief
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._first = self._steps = self._batch_size = 0
        self._start = self._last_line = 0.0

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Begin the bar at `step`."""
        self._first, self._steps, self._batch_size = step, steps, batch_size
        self._start = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[shown]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("", total=steps, completed=step, shown="")
            self._progress.start()

    def stepped(self, step: int, result: StepResult) -> None:
        """Move the bar, or print a line now and then."""
        now = time.monotonic()
        rate = (step - self._first) * self._batch_size / max(now - self._start, 1e-9)
        shown = f"loss {result.loss:.3f}  {rate:,.0f} images/s"
        if self._progress is not None:
            self._progress.update(self._task, completed=step, shown=shown)
            if step == self._steps:
                self.close()
        elif now - self._last_line > PLAIN_SECONDS or step == self._steps:
            self._last_line = now
            left = (self._steps - step) * self._batch_size / max(rate, 1e-9)
            self._console.print(f"step {step}/{self._steps}  {shown}  {left:.0f} s left", highlight=False)

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Print the loss of every evaluation, and its mean average precision or top-1 where it has one."""
        for name, value in values.items():
            if name.endswith("/loss") and not self._brief:
                data = name.removesuffix("/loss")
                found = [(word, values[f"{data}/{metric}"]) for metric, word in SHOWN if f"{data}/{metric}" in values]
                share = f"{found[0][0]} {100 * found[0][1]:.1f} %, " if found else ""
                self._console.print(f"step {step}: {data} {share}loss {value:.3f}", highlight=False)

    def saved(self, step: int, seconds: float) -> None:
        """Say nothing: checkpoints are the usual case."""

    def close(self) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
