"""Stop: the signals that ask a run to end in order, and the exit codes that say whether to start it again.

This file imports no torch: the process that launches the ranks needs it too.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, what schedulers send before they take a machine away, and what Slurm is often told to send."""
TRY_AGAIN = 75
"""The exit code of a run that a scheduler stopped: start the same command again (EX_TEMPFAIL of sysexits.h)."""
_ONE_REQUEST_SECONDS = 1.0


def exit_code(number: int) -> int:
    """Return the exit code of a run that signal `number` has stopped in order."""
    return 128 + number if number == signal.SIGINT else TRY_AGAIN


class StopRequest:
    """The first signal that asked this process to stop, as `number`; 0 before it.

    `first` is called with it, `again` with a second one. What comes within a second of the first is the same request: a scheduler
    may tell every process, and a launcher tell its own once more.
    """

    def __init__(self, first: Callable[[int], object], again: Callable[[int], object]) -> None:
        self.number = 0
        self._since = 0.0
        self._first, self._again = first, again

    def __call__(self, number: int, _: object = None) -> None:
        """Take a signal, as its handler."""
        if not self.number:
            self.number, self._since = number, time.monotonic()
            self._first(number)
        elif time.monotonic() - self._since >= _ONE_REQUEST_SECONDS:
            self._again(number)


@contextmanager
def stop_request(
    first: Callable[[int], object] = lambda _: None, again: Callable[[int], object] | None = None
) -> Generator[StopRequest]:
    """Yield the request that the signals inside make; by default a second one acts as it does outside."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def act(number: int) -> None:
        restore()
        os.kill(os.getpid(), number)

    request = StopRequest(first, again or act)
    if threading.current_thread() is not threading.main_thread():  # no other thread may have handlers
        yield request
        return
    for number in SIGNALS:
        signal.signal(number, request)
    try:
        yield request
    finally:
        restore()
