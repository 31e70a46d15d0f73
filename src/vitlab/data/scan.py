"""Every example of a source once, read by many processes; one that dies or hangs costs the file it was reading, and names it."""

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from typing import Any, Generic, TypeVar, cast

from vitlab.data.source import Example, Keyed, Source, name_of
from vitlab.errors import ImageError

PATIENCE = 60.0
"""Seconds that one file may take; the slowest that is allowed takes a few, so what takes longer does not come back."""
_TICK = 1.0
CHUNK = 256
"""Examples given to a process at a time: neighbours, because tables decode theirs together."""
_SEND_SECONDS = 0.05  # answers travel together: one message each would cost more than the header of an image

T = TypeVar("T")


def scan(
    source: Source, look: Callable[[Example], T], workers: int = 0, patience: float = PATIENCE, chunk: int = CHUNK
) -> Generator[T | ImageError]:
    """Yield what `look` makes of every example of `source`, in order, or why it could not be read or looked at.

    `workers` processes share the work, none means this process. A process that is killed by a file (a crash in a decoder,
    the system's memory limit), or that is silent for `patience` seconds, is replaced, and the file gets an error. A process is
    given up to `chunk` examples at a time, whose answers may have to wait in memory for their turn.
    """
    if workers == 0:
        return (_seen(source, look, index) for index in range(len(source)))
    return _scan_by(workers, source, look, patience, chunk)


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def key_of(source: Source, index: int) -> str:
    """Return the key of an example; its file is not read where the key is known without it."""
    return source.key(index) if isinstance(source, Keyed) else source.read(index).key


def _seen(source: Source, look: Callable[[Example], T], index: int) -> T | ImageError:
    try:
        return look(source.read(index))
    except ImageError as error:
        return error


class _Worker(Generic[T]):
    """A process that looks at the examples it is given and sends its answers; `here` is the example it is at."""

    def __init__(self, source: Source, look: Callable[[Example], T]) -> None:
        self.pipe, far = multiprocessing.Pipe()
        self.here = multiprocessing.RawValue(ctypes.c_longlong, 0)
        self.process = multiprocessing.Process(target=_work, args=(source, look, far, self.here), daemon=True)
        with _uninterrupted():
            self.process.start()
        far.close()  # so that its end is the end of the pipe
        self.waiting: Sequence[int] = ()
        self.silent = 0.0

    def give(self, examples: Sequence[int]) -> None:
        self.waiting, self.silent = examples, 0.0
        with suppress(OSError):  # of one that has ended, which is found when its answer is awaited
            self.pipe.send(examples)

    def take(self) -> dict[int, T | ImageError]:
        """Return the answers to the next few examples.

        Raises:
            EOFError: the process has ended.
        """
        try:
            answers = self.pipe.recv()
        except OSError:  # it ended within a message
            raise EOFError from None
        if isinstance(answers, Exception):
            raise answers
        taken, self.waiting, self.silent = self.waiting[: len(answers)], self.waiting[len(answers) :], 0.0
        return dict(zip(taken, cast(list[T | ImageError], answers), strict=True))

    def end(self) -> int:
        """Kill the process and return its exit code, of its own death if it was dead."""
        self.pipe.close()
        self.process.join(0.1)  # what has closed its pipe is about to end
        self.process.kill()
        self.process.join()
        return self.process.exitcode or 0


def _scan_by(
    workers: int, source: Source, look: Callable[[Example], T], patience: float, chunk: int
) -> Generator[T | ImageError]:
    count = len(source)
    size = max(1, min(chunk, count // (4 * workers)))
    chunks = (range(start, min(start + size, count)) for start in range(0, count, size))
    answers: dict[int, T | ImageError] = {}  # those that came before their turn
    turn = 0
    team: list[_Worker[T]] = []
    try:
        for _, examples in zip(range(workers), chunks, strict=False):
            team.append(_Worker(source, look))
            team[-1].give(examples)
        while turn < count:
            for place, lost in _hear(team, chunks, answers, patience):
                what, remedy = _loss(team[place].end(), lost, patience)
                at, rest = team[place].here.value, team[place].waiting
                at = at if at in rest else rest[0]  # it had just begun
                answers[at] = ImageError(name_of(source, at), what, remedy)
                team[place] = _Worker(source, look)
                team[place].give([index for index in rest if index != at] or next(chunks, ()))
            while turn in answers:
                yield answers.pop(turn)
                turn += 1
    finally:
        for worker in team:
            worker.process.kill()
        for worker in team:
            worker.end()


def _hear(
    team: list[_Worker[T]], chunks: Iterator[Sequence[int]], answers: dict[int, T | ImageError], patience: float
) -> list[tuple[int, bool]]:
    """Take the answers that are there; return which workers are lost, and whether by silence."""
    begun = time.monotonic()
    busy = [worker for worker in team if worker.waiting]
    ready = set(connection.wait([worker.pipe for worker in busy], min(_TICK, patience)))
    passed = min(time.monotonic() - begun, _TICK)  # less than it was where the whole program was suspended meanwhile
    lost: list[tuple[int, bool]] = []
    for place, worker in enumerate(team):
        if worker.pipe in ready:
            try:
                while worker.waiting and worker.pipe.poll():
                    answers |= worker.take()
            except EOFError:
                lost.append((place, False))
                continue
            if not worker.waiting:
                worker.give(next(chunks, ()))
        elif worker.waiting:
            worker.silent += passed
            if worker.silent >= patience:
                lost.append((place, True))
    return lost


@contextmanager
def _uninterrupted() -> Generator[None]:
    """Hold Ctrl-C back: while a process is forked it would be lost, or end the new process before that can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _loss(code: int, silent: bool, patience: float) -> tuple[str, str]:
    if silent:
        return f"was not read and decoded within {patience:g} seconds", "see whether its disk answers, or remove it"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"ended the process that was reading it ({how})", "see whether memory was short, or remove it"


def _work(
    source: Source, look: Callable[[Example], Any], pipe: "connection.Connection[Any, Any]", here: ctypes.c_longlong
) -> None:
    """Answer until there is no one left to answer; Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    with suppress(EOFError, OSError):
        while parent is None or parent.is_alive():
            if pipe.poll(5.0):
                _answer(source, look, pipe, here)


def _answer(
    source: Source, look: Callable[[Example], Any], pipe: "connection.Connection[Any, Any]", here: ctypes.c_longlong
) -> None:
    """Look at the examples that come next."""
    answers: list[Any] = []
    sent = time.monotonic()
    for index in pipe.recv():
        here.value = index
        try:
            answers.append(_seen(source, look, index))
        except Exception as error:
            pipe.send(error)  # is raised in the parent
            return
        if time.monotonic() - sent > _SEND_SECONDS:
            pipe.send(answers)
            answers, sent = [], time.monotonic()
    if answers:
        pipe.send(answers)
