"""Workers: processes that make items ahead of need, in order; one that dies or hangs is named, with the example it was at."""

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from vitlab.data.source import Source, name_of
from vitlab.errors import WorkerError

STALL_SECONDS = 60.0
"""A worker that has spent so long on one example hangs: no image takes a tenth of that."""
_CHECK_SECONDS = 1.0

Item = TypeVar("Item")
_PID, _EXAMPLE = 0, 1
_mine: list[torch.Tensor] = []  # in a worker its row of the log: its process, and the example it is at or -1


def at(index: int) -> None:
    """Say that this process begins with example `index`; -1: it waits. Outside a worker this does nothing."""
    for row in _mine:
        row[_EXAMPLE] = index


def ahead(items: Dataset[Item], places: Sequence[int], workers: int, source: Source) -> Iterator[Item]:
    """Yield the items at `places` in order, made ahead by `workers` processes; none means in this process.

    Raises:
        WorkerError: a worker died, or hangs; the example of `source` that it was at is named.
    """
    log = torch.full((max(workers, 1), 2), -1, dtype=torch.int64).share_memory_()
    with _no_child_signals(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # who asks for more workers than cores may
        loader = DataLoader(
            items,
            batch_size=None,
            sampler=places,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=2 if workers else None,
            generator=torch.Generator(),  # the loader draws a seed; ours must not come from the global stream
            worker_init_fn=partial(_begin, log),
            timeout=_CHECK_SECONDS if workers else 0,
        )
        iterator: Iterator[Any] = iter(loader)
    if not workers:
        yield from iterator
        return
    watch = _Watch(log)
    end = partial(watch.end, kill=True)
    atexit.register(
        end
    )  # a program that ends by an error still holds this generator, and would wait for deaf workers for ever
    try:
        while (item := _next(iterator, watch, source)) is not _END:
            yield item
        watch.end(kill=False)
    finally:
        atexit.unregister(end)
        end()


_END: Any = object()


def _next(iterator: Iterator[Any], watch: "_Watch", source: Source) -> Any:
    while True:
        try:
            with watch.waiting():
                return next(iterator, _END)
        except (
            RuntimeError,
            OSError,
            EOFError,
        ) as error:  # a worker that dies while it hands a batch over cuts the line
            if "DataLoader timed out" in str(error) and not watch.stuck:
                continue
            if not watch.stuck and not watch.dead() and not str(error).startswith("DataLoader worker (pid"):
                raise
            what = watch.story(source)
            raise WorkerError(
                str(source), what, "look at that file, or use fewer --workers, and go on with --resume"
            ) from error


class _Watch:
    """Sees from a thread of its own when no worker comes further while this process waits for one, and ends them then.

    It has to be another thread: a worker that the system has stopped may hold this one inside a half-received batch.
    """

    def __init__(self, log: torch.Tensor) -> None:
        self.log, self.stuck = log, False
        self._waiting, self._ended = threading.Event(), threading.Event()
        self._lost: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """Say that this process waits for a worker meanwhile."""
        self._waiting.set()
        try:
            yield
        finally:
            self._waiting.clear()

    def _run(self) -> None:
        seen, since = self.log.clone(), time.monotonic()
        while not self._ended.wait(_CHECK_SECONDS):
            if not self._waiting.is_set() or not torch.equal(seen, self.log):
                seen, since = self.log.clone(), time.monotonic()
            elif time.monotonic() - since >= STALL_SECONDS:
                self.stuck = True
                self._lost = self.log[:, _EXAMPLE].tolist()
                self._kill()
                return

    def _kill(self) -> None:
        for pid in self.log[:, _PID].tolist():
            if pid > 0:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def dead(self) -> bool:
        """Return whether a worker has ended, after the moment that the system takes to say so."""
        for _ in range(20):
            alive = {process.pid for process in multiprocessing.active_children()}
            gone = [row for row in self.log.tolist() if row[_PID] > 0 and row[_PID] not in alive]
            if gone:
                self._lost = self._lost or [row[_EXAMPLE] for row in gone]
                return True
            time.sleep(0.05)
        return False

    def story(self, source: Source) -> str:
        """Return what happened, with the examples of `source` that were lost."""
        self.dead()
        named = [name_of(source, index) for index in self._lost if index >= 0]
        where = f", at {' or '.join(named)}" if named else ""
        if self.stuck:
            return f"a data worker has not come further for {STALL_SECONDS:.0f} seconds{where}"
        return f"a data worker ended{where}, as when the system kills it because memory is short"

    def end(self, *, kill: bool) -> None:
        """Stop watching; with `kill` end the workers, which hear no other signal and could be stuck in a read."""
        if not self._ended.is_set():
            self._ended.set()
            if kill:
                self._kill()


def _begin(log: torch.Tensor, worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; a worker that ended by it would take the run down before it could save.

    So does the SIGTERM of a machine that is shut down. A worker ends when its parent does.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _mine[:] = [log[worker]]
    log[worker, _PID] = os.getpid()


@contextlib.contextmanager
def _no_child_signals() -> Generator[None, None, None]:
    """Keep torch from raising, in the middle of whatever this process does then, when a worker ends: it is asked each second."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
