"""Prefetch: items made ahead by a thread, so that whoever uses them need not wait."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1
_END_SECONDS = 5.0  # that an item in the making is waited for when nobody wants it any more


@contextmanager
def prefetch(items: Generator[T], depth: int) -> Generator[Iterator[T]]:
    """Give the `items` to the code inside, in order, with up to `depth` of them made ahead; then end their making.

    The first is made in this thread: processes that are started for it are forks of a process that does nothing else meanwhile.
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(max(1, depth))
    stopped = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except Exception as error:  # raised where the items are used
            put("error", error)
        finally:
            items.close()

    def taken() -> Iterator[T]:
        yield from first
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    thread = threading.Thread(target=make, daemon=True)
    try:
        first = [next(items)]
    except StopIteration:
        first = []
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join(_END_SECONDS)
