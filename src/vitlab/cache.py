"""What was downloaded once is kept: who may download, and one process at a time."""

import fcntl
import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from vitlab.download import Known, download, unreachable

_OFFLINE = ("VITLAB_OFFLINE", "HF_HUB_OFFLINE")


def bring(url: str, target: Path, check: Callable[[Path], None] | None = None, known: Known | None = None) -> None:
    """Download `url` to `target` unless it is there; of several processes that want it, one fetches it and the others wait."""
    with locked(target):
        if not target.is_file():  # another process may have brought it meanwhile
            download(url, target, check, known)


def refuse_offline(url: str, target: Path) -> None:
    """Refuse to download where $VITLAB_OFFLINE or $HF_HUB_OFFLINE rules it out.

    Raises:
        UnreachableError: it does.
    """
    for variable in _OFFLINE:
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            raise unreachable(url, target, f"{variable} is set", "unset it")


@contextmanager
def locked(target: Path) -> Generator[None]:
    """Hold the lock of `target`; the system releases it when this process ends, however it ends."""
    path = target.with_name(f".{target.name}.lock")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.getLogger("vitlab").warning("another process is downloading %s; waiting for it", target.name)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
