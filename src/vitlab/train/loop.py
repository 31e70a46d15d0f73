"""The training loop."""

import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from vitlab.data.loader import TrainBatches, bad_images_error, load
from vitlab.errors import ImageError
from vitlab.models.classifier import Classifier
from vitlab.train.config import TrainSettings
from vitlab.train.run import RunFolder
from vitlab.train.state import TrainState
from vitlab.train.step import StepResult, train_step

Evaluator = Callable[[Classifier], Mapping[str, float]]


@runtime_checkable
class Watcher(Protocol):
    """Somebody who follows a run; nothing that a watcher does changes it."""

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Training goes from `step` to `steps`."""
        ...

    def stepped(self, step: int, result: StepResult) -> None:
        """Update number `step` was made."""
        ...

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """The model was evaluated after `step` updates."""
        ...

    def saved(self, step: int, seconds: float) -> None:
        """A checkpoint was written."""
        ...

    def close(self) -> None:
        """Training ended, one way or the other."""
        ...


class Interrupted(Exception):  # noqa: N818  (an event, not an error: the run is whole and can go on)
    """The run was asked to stop and can be continued at `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


def train(
    state: TrainState,
    batches: TrainBatches,
    settings: TrainSettings,
    run: RunFolder,
    evaluators: Mapping[str, Evaluator],
    watcher: Watcher,
    workers: int = 0,
) -> None:
    """Train `state` to the last step. The order of the loop is: evaluate, save, step, log.

    Evaluation comes before saving, so that a checkpoint's metrics are complete and a resumed run repeats nothing. Which batch is
    next follows from the step alone.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first. A second signal ends the process at once.
        BadImagesError: an image cannot be decoded; every such image is named.
        NonFiniteError: the loss or the gradient is not finite.
    """
    first = state.step
    watcher.started(first, settings.steps, settings.batch_size)
    try:
        with _stop_requests() as stop_requested:
            try:
                for batch in load(batches, range(first, settings.steps), workers):
                    if state.step > first and _due(state.step, settings.eval_every):
                        _evaluate(state, settings, run, evaluators, watcher)
                    if state.step > first and (_due(state.step, settings.checkpoint_every) or stop_requested()):
                        _save(state, run, watcher)
                    if stop_requested():
                        raise Interrupted(state.step)
                    result = train_step(state, batch, settings)
                    if _due(state.step, settings.log_every) or state.step == settings.steps:
                        values = {"train/loss": result.loss, "train/grad_norm": result.grad_norm, "train/lr": result.lr}
                        run.log(state.step, state.step * settings.batch_size, values)
                    watcher.stepped(state.step, result)
            finally:
                watcher.close()
            if state.step > first:
                _evaluate(state, settings, run, evaluators, watcher)
                _save(state, run, watcher)
    except ImageError as error:  # outside, so that Ctrl-C ends the search for others
        raise bad_images_error(batches.source, error, batches.spec.limits, workers) from error


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _evaluate(
    state: TrainState, settings: TrainSettings, run: RunFolder, evaluators: Mapping[str, Evaluator], watcher: Watcher
) -> None:
    values: dict[str, float] = {}
    for name, evaluator in evaluators.items():
        values |= {f"{name}/{metric}": value for metric, value in evaluator(state.model).items()}
    if values:
        run.log(state.step, state.step * settings.batch_size, values)
        watcher.evaluated(state.step, values)


def _save(state: TrainState, run: RunFolder, watcher: Watcher) -> None:
    start = time.monotonic()
    run.save_checkpoint(state)
    watcher.saved(state.step, time.monotonic() - start)


@contextmanager
def _stop_requests() -> Generator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request that the loop reads between steps; the second acts as it always does."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _: object) -> None:
        requested.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
