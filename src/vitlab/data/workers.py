"""Workers: processes that make items ahead of need, in order; one that dies or hangs is named, with the example it was at."""

import contextlib
import os
import re
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
    seen, since = log.clone(), time.monotonic()
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader"):
                raise
            if "timed out" not in str(error):
                raise _died(log, source, str(error)) from error
            if not torch.equal(seen, log):
                seen, since = log.clone(), time.monotonic()
            elif time.monotonic() - since >= STALL_SECONDS:
                raise _hangs(log, source) from error
            continue
        yield item
        seen, since = log.clone(), time.monotonic()


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


def _died(log: torch.Tensor, source: Source, message: str) -> WorkerError:
    ended = {int(number) for number in re.findall(r"\d+", message)}
    examples = [int(row[_EXAMPLE]) for row in log if int(row[_PID]) in ended]
    what = f"a data worker ended{_at(source, examples)}, as when the system kills it because memory is short"
    return WorkerError(str(source), what, "look at that image, or use fewer --workers, and go on with --resume")


def _hangs(log: torch.Tensor, source: Source) -> WorkerError:
    examples = [int(row[_EXAMPLE]) for row in log]
    for row in log:  # a worker that is stuck in a read hears nothing else, and this process could not end before it
        with contextlib.suppress(OSError, RuntimeError):
            os.kill(int(row[_PID]), signal.SIGKILL)
    what = f"a data worker has not come further for {STALL_SECONDS:.0f} seconds{_at(source, examples)}"
    return WorkerError(str(source), what, "look at that file and its disk, and go on with --resume")


def _at(source: Source, examples: list[int]) -> str:
    named = [name_of(source, index) for index in examples if index >= 0]
    return f", at {' or '.join(named)}" if named else ""
