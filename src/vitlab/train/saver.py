"""Saver: writes checkpoints while training goes on, one at a time."""

import contextlib
import logging
import threading
from pathlib import Path

from vitlab import files
from vitlab.errors import CheckpointError
from vitlab.ranks import Ranks
from vitlab.train import checkpoint
from vitlab.train.state import TrainState

log = logging.getLogger("vitlab")


class Saver:
    """Copies a state and writes the copy in a thread; what cannot be written is said, and tried again with the next state."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._folder, self._ranks = folder, ranks
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: TrainState, metrics_bytes: int) -> None:
        """Begin to write a checkpoint of `state`; wait first for the one before.

        A collective: every rank has to call it at the same step.
        """
        self.wait()
        snapshot = checkpoint.take(state, metrics_bytes)
        try:
            if state.ranks.first:
                checkpoint.prepare(self._folder, state.step)
        except OSError as error:
            self._error, snapshot = error, None
        if state.sharded:
            state.ranks.wait()  # the draft is there for all
        if snapshot is None:
            self._report()
            return
        self._thread = threading.Thread(target=self._write, args=(snapshot,), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the last checkpoint is on the disk, whole; every rank has to call it.

        Raises:
            CheckpointError: it could not be written.
        """
        self.wait()
        failed = [
            reason for rank in self._ranks.words([_reason(self._error)] if self._error else []) for reason in rank
        ]
        if failed:
            what = f"the last checkpoint could not be written ({failed[0]})"
            raise CheckpointError(self._folder, what, "make room, and go on with --resume") from self._error

    def _write(self, snapshot: checkpoint.Snapshot) -> None:
        try:
            checkpoint.commit(self._folder, snapshot)
            self._error = None
        except Exception as error:
            self._error = error
            if snapshot.ranks.first:
                with contextlib.suppress(OSError):  # a disk that is full needs the room
                    files.remove(checkpoint.draft_of(self._folder, snapshot.step))

    def wait(self) -> None:
        """Wait until the last checkpoint is written, or could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._report()

    def _report(self) -> None:
        if self._error is not None:
            log.warning(
                "%s: a checkpoint could not be written (%s); training goes on", self._folder, _reason(self._error)
            )


def _reason(error: BaseException) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
