"""The watcher at a terminal: a line that moves there, plain lines elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vitlab.train.step import StepResult
from vitlab.train.watcher import Quiet

SHOWN = (("map", "mAP"), ("top1", "top-1"))
"""What is printed of an evaluation besides the loss, the first that it has."""
NOTED = {"train/spike": "the loss stands out", "train/skipped": "not finite, left out"}
"""What is printed of an update that stood out."""
PLAIN_SECONDS = 10.0
"""How often a log that is no terminal gets a line."""
MUCH_WAITING = 0.05
"""From this share of the time on it is said that training waits for images."""


class Terminal(Quiet):
    """Shows step, loss, images a second, the share of the device's rate and the time left; `brief` leaves out the evaluations."""

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        self._console = console
        self._brief = brief
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._first = self._steps = self._batch_size = 0
        self._start = self._last_line = 0.0
        self._use = ""

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Begin the bar at `step`."""
        self._first, self._steps, self._batch_size = step, steps, batch_size
        self._start = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._progress = Progress(
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
        shown = f"loss {result.loss:.3f}  {rate:,.0f} images/s{self._use}"
        if self._progress is not None:
            self._progress.update(self._task, completed=step, shown=shown)
            if step == self._steps:
                self.close()
        elif now - self._last_line > PLAIN_SECONDS or step == self._steps:
            self._last_line = now
            left = (self._steps - step) * self._batch_size / max(rate, 1e-9)
            self._console.print(f"step {step}/{self._steps}  {shown}  {left:.0f} s left", highlight=False)

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Remember how well the device is used, and whether it waits for images, for the next line."""
        del step
        if "train/utilisation" in values:
            wait = values["train/data_wait"]
            waits = f", {100 * wait:.0f} % waiting" if wait >= MUCH_WAITING else ""
            self._use = f", {100 * values['train/utilisation']:.0f} % used{waits}"

    def noted(self, step: int, name: str, value: float) -> None:
        """Say which update stood out, and where its images are named."""
        said = NOTED.get(name, name)
        self._console.print(f"step {step}: {said} ({value:.4g}); its images are in events.jsonl", highlight=False)

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Print the loss of every evaluation, and its mean average precision or top-1 where it has one."""
        for name, value in values.items():
            if name.endswith("/loss") and not self._brief:
                data = name.removesuffix("/loss")
                found = [(word, values[f"{data}/{metric}"]) for metric, word in SHOWN if f"{data}/{metric}" in values]
                share = f"{found[0][0]} {100 * found[0][1]:.1f} %, " if found else ""
                self._console.print(f"step {step}: {data} {share}loss {value:.3f}", highlight=False)

    def close(self) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
