"""Batching: a model runs on batches of one shape, one after the other, filled with whatever waits."""

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

THREADS = 2
"""One runs the model while the other reads what came out and makes the next batch, which would cost a small model a tenth."""
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
        self._running = 0  # batches and functions that were taken and have not run
        self._turn = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"model {name}, {number}", daemon=True)
            for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

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
        return await self._wait([_Job(image, None) for image in images])

    async def run(self, work: Callable[[Predictor], T]) -> T:
        """Return what `work` makes of the predictor in its turn, while the model runs nothing else.

        Raises:
            BusyError: too many wait already.
            Exception: what `work` raises.
        """
        with self.room(1):
            (found,) = await self._wait([_Job(None, work)])
            return found

    def end(self) -> None:
        """Finish what waits, then end the threads."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    async def _wait(self, jobs: "list[_Job]") -> list[Any]:
        """Return what comes of `jobs`; whoever gives up takes those along that have not begun."""
        with self._changed:
            self._jobs.extend(jobs)
            self._changed.notify()
        try:
            return list(await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs)))
        except BaseException:
            for job in jobs:
                job.future.cancel()
            with self._changed:
                self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
            raise

    def _work(self) -> None:
        while jobs := self._take():
            wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]  # some have left
            if not wanted:
                self._ran()
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
            while (left := self._left()) is None or left > 0:
                if self._ending and not self._jobs:
                    return []
                self._changed.wait(left)
            self._running += 1
            taken = [self._jobs.popleft()]
            while taken[0].work is None and len(taken) < size and self._jobs and self._jobs[0].work is None:
                taken.append(self._jobs.popleft())
            return taken

    def _left(self) -> float | None:
        """Return in how many seconds something can be taken, None before there is a reason to look again.

        While the model runs only a full batch can, whose images are then put together meanwhile: others may still be joined.
        """
        if not self._jobs:
            return None
        first = self._jobs[0]
        full = first.work is None and len(self._jobs) >= self.predictor.batch_size
        if self._running and not full:
            return None
        if full or first.work is not None or self._ending:
            return 0.0
        return first.since + self._patience - time.monotonic()

    def _ran(self) -> None:
        """Let others take what waits."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _answers(self, jobs: Sequence[_Job]) -> Sequence[Any]:
        try:
            if jobs[0].work is not None:
                with self._turn:
                    return [jobs[0].work(self.predictor)]
            batch = self.predictor.stack([job.image for job in jobs if job.image is not None])
            with self._turn:
                self.images, self.batches = self.images + len(jobs), self.batches + 1
                outputs = self.predictor.engine.run(batch)
        finally:
            self._ran()
        return self.predictor.read(outputs, len(jobs))
