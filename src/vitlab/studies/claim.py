"""Claim: who works on a piece of a study, among processes and machines that share its folder.

A claim is a file `NAME.1` that was made exclusively; its owner touches it while it works. Whoever finds it left by a process that
is gone makes `NAME.2`, which again only one can: the highest number holds.
"""

import contextlib
import fcntl
import os
import socket
import threading
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vitlab import files

HEARTBEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
"""An owner on another machine that has not touched its claim for so long is taken to be gone: clocks of file servers and stalls of
a shared disk are shorter. Of one on this machine the lock tells at once."""


@dataclass(frozen=True)
class Held:
    """A claim of this process, and its place in the order of claims on the same piece."""

    path: Path

    @property
    def lost(self) -> bool:
        """Whether another process has taken over, because this one gave no sign of life for too long."""
        return _newest(self.path.parent, self.path.stem) != self.path


@contextmanager
def claim(folder: Path, name: str) -> Generator[Held | None]:
    """Hold the piece `name` of the study whose claims are in `folder`; None where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = _take(folder, name)
    if taken is None:
        yield None
        return
    path, lock = taken
    stopped = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, stopped), daemon=True)
    beating.start()
    try:
        yield Held(path)
    finally:
        stopped.set()
        beating.join()
        for each in _all(folder, name):
            if _number(each) <= _number(path):
                files.remove(each)
        lock.close()


def _take(folder: Path, name: str) -> tuple[Path, IO[str]] | None:
    newest = _newest(folder, name)
    if newest is not None and not _is_left(newest):
        return None
    path = folder / f"{name}.{1 if newest is None else _number(newest) + 1}"
    try:
        lock = path.open("x+")
    except FileExistsError:  # another was a moment earlier
        return None
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return path, lock


def owner(folder: Path, name: str) -> str | None:
    """Return who holds the piece `name`, None when nobody does."""
    newest = _newest(folder, name)
    if newest is None or _is_left(newest):
        return None
    with contextlib.suppress(OSError):
        return newest.read_text().strip() or "another process"
    return None


def _is_left(path: Path) -> bool:
    """Return whether the owner of the claim at `path` is gone."""
    try:
        with path.open("r+") as file:
            if file.read().strip().endswith(f" on {socket.gethostname()}"):
                return _is_unlocked(file)
        return _now(path.parent) - path.stat().st_mtime > PATIENCE_SECONDS
    except FileNotFoundError:  # it was given back in this moment: ask again later
        return False


def _is_unlocked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _now(folder: Path) -> float:
    """Return the time by the clock of the file system, which is the one that dates the claims."""
    probe = folder / f".{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _beat(path: Path, stopped: threading.Event) -> None:
    while not stopped.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


def _all(folder: Path, name: str) -> list[Path]:
    found = [path for path in folder.glob(f"{name}.*") if path.stem == name and path.suffix[1:].isdigit()]
    return sorted(found, key=_number)


def _newest(folder: Path, name: str) -> Path | None:
    return next(reversed(_all(folder, name)), None)


def _number(path: Path) -> int:
    return int(path.suffix[1:])
