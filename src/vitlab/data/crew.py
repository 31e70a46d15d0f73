"""Crew: work shared among processes that begin and end together, whatever ends one of them; one that hangs is named."""

import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from vitlab.data.scan import PATIENCE
from vitlab.errors import PackError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Advance = Callable[[int], None]
"""Takes how many more examples are done."""
_TICK = 1.0
_NONE = -1
_here: "list[memoryview[int]]" = []  # in a process of a crew the number of the example that it is at, which its parent sees


@contextmanager
def at(index: int) -> Generator[None]:
    """Say that this process is busy with example `index`, which must not take longer than the parent has patience."""
    for number in _here:
        number[0] = index
    try:
        yield
    finally:
        for number in _here:
            number[0] = _NONE


@dataclass
class _Hand:
    """A process of a crew, the example that it is at, and for how many seconds it has been seen there."""

    process: Any
    here: "memoryview[int]"
    seen: int = _NONE
    silent: float = 0.0

    def watch(self, passed: float) -> float:
        """Return for how long it has been at one example, `passed` seconds after the last look."""
        before, self.seen = self.seen, self.here[0]
        self.silent = self.silent + passed if self.seen == before != _NONE else 0.0
        return self.silent


def share(
    work: Callable[[Item, Advance], Answer],
    items: Sequence[Item],
    workers: int,
    advance: Advance,
    name: Callable[[int], str],
    patience: float = PATIENCE,
) -> Generator[Answer]:
    """Yield what `work` answers for each of `items`, as it comes: from `workers` processes, none means this one.

    The processes are forks of this one, so that they share what it has read; they end when the caller stops asking, and when
    it dies. `work` says by `at` which example it is at, and `name` what that is called.

    Raises:
        PackError: a process was killed, or was at one example for `patience` seconds, as where a disk does not answer.
        Exception: what `work` raises, in whichever process.
    """
    workers = min(workers, len(items))
    if workers == 0:
        for item in items:
            yield work(item, advance)
        return
    context = multiprocessing.get_context("fork")
    crew: dict[Connection[Any, Any], _Hand] = {}
    try:
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            here = memoryview(mmap.mmap(-1, 8)).cast("q")  # shared with a fork, and of no file, for a disk may be full
            here[0] = _NONE
            arguments = (work, items[number::workers], theirs, here, os.getpid(), [*crew, ours])
            crew[ours] = _Hand(context.Process(target=_labour, args=arguments, daemon=True), here)
            crew[ours].process.start()
            theirs.close()  # so that its end is seen when the process dies
        yield from _answers(crew, advance, name, patience)
    finally:
        for connection, hand in crew.items():
            hand.process.kill()
            hand.process.join()
            connection.close()


def _answers(
    crew: "dict[Connection[Any, Any], _Hand]", advance: Advance, name: Callable[[int], str], patience: float
) -> Generator[Any]:
    working = set(crew)
    while working:
        begun = time.monotonic()
        ready = wait(list(working), min(_TICK, patience))
        passed = min(
            time.monotonic() - begun, _TICK
        )  # less than it was where the whole program was suspended meanwhile
        for hand in (crew[connection] for connection in working):
            if hand.watch(passed) >= patience:
                what, remedy = f"was not read and decoded within {patience:g} seconds", "see whether its disk answers"
                raise PackError(name(hand.seen), what, f"{remedy}; the same command goes on")
        for connection in ready:
            assert isinstance(connection, Connection)
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):  # perhaps in the middle of an answer
                raise _died(crew[connection], name) from None
            if kind == "advance":
                advance(value)
            elif kind == "answer":
                yield value
            elif kind == "error":
                raise value
            else:
                working.remove(connection)


def _died(hand: _Hand, name: Callable[[int], str]) -> PackError:
    hand.process.join()
    code, here = hand.process.exitcode, hand.here[0]
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    place = "" if here == _NONE else f", at {name(here)}"
    what = f"a worker process ended before its work ({reason}){place}"
    return PackError("workers", what, "was memory short? the same command goes on; try fewer")


def _labour(
    work: Callable[[Any, Advance], Any],
    items: Sequence[Any],
    tell: "Connection[Any, Any]",
    here: "memoryview[int]",
    parent: int,
    others: "Sequence[Connection[Any, Any]]",
) -> None:
    """Do the work of one process; Ctrl-C reaches it too, but the parent decides when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _here[:] = [here]
    for connection in others:
        connection.close()  # so that the end of the parent is seen too

    def advance(count: int) -> None:
        if os.getppid() != parent:
            os._exit(1)
        tell.send(("advance", count))

    try:
        for item in items:
            tell.send(("answer", work(item, advance)))
        tell.send(("end", None))
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        tell.send(("error", error))
