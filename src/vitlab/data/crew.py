"""Crew: work shared among processes that begin and end together, whatever ends one of them."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from vitlab.errors import PackError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Advance = Callable[[int], None]
"""Takes how many more examples are done."""


def share(
    work: Callable[[Item, Advance], Answer], items: Sequence[Item], workers: int, advance: Advance
) -> Generator[Answer]:
    """Yield what `work` answers for each of `items`, as it comes: from `workers` processes, from this one if fewer than two.

    The processes are forks of this one, so that they share what it has read; they end when the caller stops asking, and when
    it dies.

    Raises:
        PackError: a process was killed.
        Exception: what `work` raises, in whichever process.
    """
    workers = min(workers, len(items))
    if workers < 2:
        for item in items:
            yield work(item, advance)
        return
    context = multiprocessing.get_context("fork")
    crew: dict[Connection[Any, Any], Any] = {}
    try:
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (work, items[number::workers], theirs, os.getpid(), [*crew, ours])
            crew[ours] = context.Process(target=_labour, args=arguments, daemon=True)
            crew[ours].start()
            theirs.close()  # so that its end is seen when the process dies
        yield from _answers(crew, advance)
    finally:
        for connection, process in crew.items():
            process.kill()
            process.join()
            connection.close()


def _answers(crew: "dict[Connection[Any, Any], Any]", advance: Advance) -> Generator[Any]:
    working = set(crew)
    while working:
        for connection in wait(list(working)):
            assert isinstance(connection, Connection)
            try:
                kind, value = connection.recv()
            except EOFError:
                crew[connection].join()
                code = crew[connection].exitcode
                reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                what = f"a worker process ended before its work ({reason})"
                raise PackError("workers", what, "was memory short? the same command goes on; try fewer") from None
            if kind == "advance":
                advance(value)
            elif kind == "answer":
                yield value
            elif kind == "error":
                raise value
            else:
                working.remove(connection)


def _labour(
    work: Callable[[Any, Advance], Any],
    items: Sequence[Any],
    tell: "Connection[Any, Any]",
    parent: int,
    others: "Sequence[Connection[Any, Any]]",
) -> None:
    """Do the work of one process; Ctrl-C reaches it too, but the parent decides when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
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
