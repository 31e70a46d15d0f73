"""The training loop."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from vitlab.data.batch import Batch
from vitlab.data.loader import Pieces, TrainBatches, bad_images_error, load
from vitlab.errors import ImageError, NonFiniteError
from vitlab.models.classifier import Classifier
from vitlab.train.allocation import keep_freed_memory
from vitlab.train.config import TrainSettings
from vitlab.train.heartbeat import heartbeat
from vitlab.train.meter import timed
from vitlab.train.preparation import prepared, uncompiled
from vitlab.train.run import RunFolder
from vitlab.train.spikes import WINDOW, is_spike
from vitlab.train.state import TrainState
from vitlab.train.step import Update, train_step
from vitlab.train.stop import StopRequest, exit_code, stop_request
from vitlab.train.watcher import Watcher

Evaluator = Callable[[Classifier], Mapping[str, float]]


class Interrupted(Exception):  # noqa: N818  (an event, not an error: the run is whole and can go on)
    """The run was asked to stop, by signal `number`, and can be continued at `step`."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        super().__init__(step, number)
        self.step = step
        self.exit_code = exit_code(number)


def train(
    state: TrainState,
    batches: TrainBatches,
    settings: TrainSettings,
    run: RunFolder,
    evaluators: Mapping[str, Evaluator],
    watcher: Watcher,
    workers: int = 0,
) -> None:
    """Train `state` to the last step, or until its evaluations have not got better for as long as the settings' patience; the model
    then has the weights that are to be written. The order of the loop is: evaluate, save, step, log.

    Evaluation comes before saving, so that a checkpoint's metrics are complete and a resumed run repeats nothing. Which images are
    next follows from the step alone. `batches` are pieces, so that a batch of any size fits the memory. With several ranks all of
    them call this, each with its own part of every batch.

    Where the device works by itself the numbers of an update are read when the next one is under way.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGUSR1 to any of the ranks; a checkpoint was written first. A second one ends the process.
        BadImagesError: an image cannot be decoded; every such image is named.
        NonFiniteError: the loss or the gradient is not finite.
        CheckpointError: the last checkpoint could not be written.
        RankError: another rank is lost.
    """
    if state.device.type == "cpu":
        keep_freed_memory(not settings.remat)
    watcher.started(state.step, settings.steps, settings.batch_size)
    try:
        with prepared(state.model, settings), stop_request() as stop, heartbeat(state.ranks) as beat:
            places = Pieces(state.step, settings.steps, settings.pieces, state.ranks)
            pieces = load(batches, places, workers)
            pieces = timed(beat.watch(pieces) if beat else pieces, watcher.waited)
            _Loop(state, pieces, settings, run, evaluators, watcher).go(stop)
    except ImageError as error:  # outside, so that Ctrl-C ends the search for others
        raise bad_images_error(batches.source, error, batches.spec.limits, workers) from error


@dataclass
class _Loop:
    state: TrainState
    pieces: Iterator[Batch]
    settings: TrainSettings
    run: RunFolder
    evaluators: Mapping[str, Evaluator]
    watcher: Watcher
    pending: Update | None = None
    stopping: bool = False

    def go(self, stop: StopRequest) -> None:
        """Train to the last step."""
        state, settings, first = self.state, self.settings, self.state.step
        try:
            while state.step < settings.steps:
                if state.step > first:
                    self._between(stop)
                if self._patience_is_over():
                    break
                asked = bool(stop.number)
                mine = islice(self.pieces, len(state.ranks.share(settings.pieces)))
                update = train_step(state, mine, settings, stop=asked)
                self._read_pending()
                self.pending = update
                if state.device.type == "cpu" or settings.skip_nonfinite:  # it is there already, or has to be
                    self._read_pending()
            self._read_pending()
            if state.step > first:
                if not self._patience_is_over():
                    self._evaluate()
                self._save()
            self.run.finish_checkpoint()
            if state.settle():  # what is logged last is true of the model that is written
                self._evaluate(again=True)
        finally:
            self.watcher.close()

    def _patience_is_over(self) -> bool:
        standing, patience = self.state.standing, self.settings.patience
        return standing is not None and patience is not None and standing.since >= patience

    def _between(self, stop: StopRequest) -> None:
        """Do what is due between two steps."""
        step, settings = self.state.step, self.settings
        evaluation_due, checkpoint_due = _due(step, settings.eval_every), _due(step, settings.checkpoint_every)
        if evaluation_due or checkpoint_due:
            self._read_pending()
        if evaluation_due:
            self._evaluate()
        if self._patience_is_over():
            return  # the end saves
        # alone, a request is seen at once; several ranks see it where all of them know of it
        self.stopping = self.stopping or (self.state.ranks.world == 1 and stop.number > 0)
        if self.stopping:
            self._read_pending()
        if checkpoint_due or self.stopping:
            self._save()
        if self.stopping:
            self.run.finish_checkpoint()
            asked = [int(number) for rank in self.state.ranks.words([str(int(stop.number))]) for number in rank]
            raise Interrupted(step, max(asked))

    def _read_pending(self) -> None:
        """Log the numbers of the update that was not read yet."""
        update, self.pending = self.pending, None
        if update is None:
            return
        state, settings, step = self.state, self.settings, update.step + 1
        try:
            result = update.read(state)
        except NonFiniteError as error:
            self._refused(update, error)
            return
        finally:
            self.stopping = self.stopping or update.stop_requests > 0
        if is_spike(result.loss, state.recent):
            self._note(update, "train/spike", result.loss)
        state.recent = [*state.recent, result.loss][-WINDOW:]
        values = {"train/loss": result.loss, "train/grad_norm": result.grad_norm, "train/lr": result.lr}
        due = _due(step, settings.log_every) or step == settings.steps
        if due or step == 1 or _due(step - 1, settings.checkpoint_every):  # `vitlab verify` makes these again
            self.run.log(step, step * settings.batch_size, values)
        if due:
            self.watcher.logged(step, values)
        self.watcher.stepped(step, result)

    def _refused(self, update: Update, error: NonFiniteError) -> None:
        """Leave the update out if that many may be, else stop."""
        if self.state.skipped >= self.settings.skip_nonfinite:
            raise error
        self.state.skipped, self.state.step = self.state.skipped + 1, update.step + 1
        self._note(update, "train/skipped", float(self.state.skipped))

    def _note(self, update: Update, event: str, value: float) -> None:
        """Log an `event` of an update, and beside the metrics the names of the images that were in it."""
        step = update.step + 1
        mine = [key for keys in update.keys for key in keys]
        keys = [key for rank in self.state.ranks.words(mine) for key in rank]
        self.run.log(step, step * self.settings.batch_size, {event: value})
        self.watcher.noted(step, event, value)
        self.run.note({"step": step, "name": event, "value": value, "images": keys})

    def _evaluate(self, *, again: bool = False) -> None:
        state, values = self.state, dict[str, float]()
        if self.evaluators:
            self.run.wait_for_checkpoint()  # evaluation may fork, and a thread that holds a lock then holds it for ever
        with state.evaluated(), uncompiled(self.settings):
            for name, evaluator in self.evaluators.items():
                values |= {f"{name}/{metric}": value for metric, value in evaluator(state.model).items()}
            if values and self.settings.patience is not None and not again:
                state.compare(values)
        if values:
            self.run.log(state.step, state.step * self.settings.batch_size, values)
            self.watcher.evaluated(state.step, values)

    def _save(self) -> None:
        start = time.monotonic()
        self.run.save_checkpoint(self.state)
        self.watcher.saved(self.state.step, time.monotonic() - start)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
