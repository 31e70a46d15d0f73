"""Batching: one thread runs a model, on batches of one shape, filled with whatever waits."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Pixels
from vitlab.errors import BusyError
from vitlab.serve.predict import Prediction, Predictor
from vitlab.serve.settings import ServeSettings

T = TypeVar("T")
log = logging.getLogger("vitlab")


@dataclass
class _Job:
    """An image to answer, or else a function to call, and who waits for what comes of it."""

    image: Pixels | None
    work: Callable[[Predictor], Any] | None
    future: "Future[Any]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Served:
    """A model under the name by which requests ask for it.

    Every batch has the shape `predictor.batch_size`, so the answer to an image does not depend on those beside it. `images` and
    `batches` count what has been answered.
    """

    def __init__(self, name: str, predictor: Predictor, settings: ServeSettings) -> None:
        self.name, self.predictor = name, predictor
        limits = predictor.spec.limits.model_copy(update={"max_pixels": settings.max_pixels})
        self.spec: ImageSpec = predictor.spec.model_copy(update={"limits": limits})
        self.accepted = self.images = self.batches = 0
        self._most, self._patience = settings.max_waiting, settings.batch_seconds
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many images and functions wait for the model."""
        return len(self._jobs)

    @contextmanager
    def room(self, count: int) -> Generator[None]:
        """Hold the places of `count` images meanwhile, from before they are decoded until they are answered.

        Raises:
            BusyError: there are not so many places left.
        """
        if self.accepted + count > self._most:
            raise BusyError(self.name, f"has {self.accepted} images to answer", "ask again in a moment")
        self.accepted += count
        try:
            yield
        finally:
            self.accepted -= count

    async def answer(self, images: Sequence[Pixels]) -> list[Prediction]:
        """Return the predictions for images that `spec` prepared, in order; whoever asks holds `room` for them."""
        futures = self._put([_Job(image, None) for image in images])
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    async def run(self, work: Callable[[Predictor], T]) -> T:
        """Return what `work` makes of the predictor, in the thread that runs the model, in its turn.

        Raises:
            BusyError: too many wait already.
            Exception: what `work` raises.
        """
        with self.room(1):
            (future,) = self._put([_Job(None, work)])
            return await asyncio.wrap_future(future)

    def end(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _put(self, jobs: "list[_Job]") -> "list[Future[Any]]":
        with self._changed:
            self._jobs.extend(jobs)
            self._changed.notify()
        return [job.future for job in jobs]

    def _work(self) -> None:
        while jobs := self._take():
            wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]  # some have left
            if not wanted:
                continue
            try:
                answers = self._answers(wanted)
            except Exception as error:  # of one batch: the next is another matter
                log.exception("%s failed", self.name)
                for job in wanted:
                    job.future.set_exception(error)
                continue
            for job, answer in zip(wanted, answers, strict=True):
                job.future.set_result(answer)

    def _take(self) -> list[_Job]:
        """Return the function whose turn it is, or images for a batch, full or when the first has waited long enough."""
        size = self.predictor.batch_size
        with self._changed:
            while not self._jobs:
                if self._ending:
                    return []
                self._changed.wait()
            until = self._jobs[0].since + self._patience
            while self._jobs[0].work is None and len(self._jobs) < size and not self._ending:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken = [self._jobs.popleft()]
            while taken[0].work is None and len(taken) < size and self._jobs and self._jobs[0].work is None:
                taken.append(self._jobs.popleft())
            return taken

    def _answers(self, jobs: Sequence[_Job]) -> Sequence[Any]:
        if jobs[0].work is not None:
            return [jobs[0].work(self.predictor)]
        self.images, self.batches = self.images + len(jobs), self.batches + 1
        return self.predictor.answer([job.image for job in jobs if job.image is not None])
