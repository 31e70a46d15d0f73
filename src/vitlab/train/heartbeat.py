"""Heartbeat: ranks that are dead, stopped, or stuck in a read are named by the others within a minute."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist

from vitlab.errors import RankError, one_line
from vitlab.ranks import Ranks
from vitlab.train.launch import LAUNCHER

SILENT_SECONDS = 60.0
"""A rank that has said nothing for so long, or waited for images, ends the run: no piece of a batch takes a tenth of that."""
_BEAT_SECONDS = 0.5
_GONE_SECONDS = 4.0
"""A rank whose connection broke and that has not said anything for so long is taken for the cause."""

_ENDED, _FAILED = "ended", "failed: "

T = TypeVar("T")


class Heartbeat:
    """Tells the other ranks twice a second that this one lives, and whether it waits for data; ends this process when one does not.

    It runs in a thread, since the process may be waiting for that rank in a collective, for ever.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._store = ranks.connect()
        self._reads, self._reading = 0, False
        self._seen: dict[int, tuple[str, float]] = {}
        self._ended = threading.Event()
        self._say("beat 0")  # so that a rank that is lost at once can be named
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def watch(self, items: Iterator[T]) -> Iterator[T]:
        """Yield `items`, and say so while this rank waits for one."""
        while True:
            self._reads, self._reading = self._reads + 1, True
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._reading = False
            yield item

    def lost(self, error: Exception) -> RankError:
        """Return who is to blame for a collective that broke with `error`."""
        deadline = time.monotonic() + 2 * _GONE_SECONDS
        while time.monotonic() < deadline:
            for rank in range(self._ranks.world):
                silent = self._silent(rank)
                if reason := self._failure(rank):
                    return _gone(self._name(rank), reason)
                if rank != self._ranks.rank and silent > _GONE_SECONDS:
                    return _gone(self._name(rank), "does not answer any more")
            time.sleep(_BEAT_SECONDS)
        return _gone("the ranks", f"lost each other ({str(error).splitlines()[0]})")

    def end(self, error: BaseException | None) -> None:
        """Stop watching; tell the others not to wait for more, or with which `error` this rank leaves them."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError):  # the place where the ranks meet may have closed
            if error is None:
                self._store.set(self._key(self._ranks.rank), _ENDED)
            elif isinstance(error, Exception) and not isinstance(error, RankError):
                self._say(_FAILED + one_line((str(error) or type(error).__name__).splitlines()[0]))

    def _run(self) -> None:
        beats, parent = 0, os.environ.get(LAUNCHER)
        while not self._ended.wait(_BEAT_SECONDS):
            beats += 1
            if parent and str(os.getppid()) != parent:
                _leave(_gone("the process that launched the ranks", "is gone"))
            try:
                self._say(f"read {self._reads}" if self._reading else f"beat {beats}")
                slow = [rank for rank in range(self._ranks.world) if self._silent(rank) > SILENT_SECONDS]
            except RuntimeError:  # where the ranks meet is gone, and with it the rank or the agent that kept it
                if not self._ended.is_set():
                    time.sleep(_GONE_SECONDS)  # a rank that ends in order ends this process too
                    _leave(_gone("rank 0", "does not answer any more"))
                return
            for rank in slow:
                stuck = self._seen[rank][0].startswith("read")
                what = "has not got its next images" if stuck else "has not answered"
                _leave(_gone(self._name(rank), self._failure(rank) or f"{what} for {SILENT_SECONDS:.0f} seconds"))

    def _say(self, state: str) -> None:
        who = f"process {os.getpid()} on {socket.gethostname()}"
        self._store.set(self._key(self._ranks.rank), f"{state}|{who}")

    def _silent(self, rank: int) -> float:
        """Return for how many seconds `rank` has said nothing new; none before its first word and after its last."""
        said = self._store.get(self._key(rank)).decode() if self._store.check([self._key(rank)]) else _ENDED
        if said == _ENDED:
            return 0.0
        if rank not in self._seen or self._seen[rank][0] != said:
            self._seen[rank] = said, time.monotonic()
        return time.monotonic() - self._seen[rank][1]

    def _key(self, rank: int) -> str:
        return f"beat/{rank}"

    def _name(self, rank: int) -> str:
        return f"rank {rank} ({self._seen[rank][0].rpartition('|')[2]})"

    def _failure(self, rank: int) -> str | None:
        """Return what `rank` said that it failed with, if it did."""
        said = self._seen.get(rank, ("", 0.0))[0]
        return said.rpartition("|")[0].removeprefix(_FAILED) if said.startswith(_FAILED) else None


@contextmanager
def heartbeat(ranks: Ranks) -> Generator[Heartbeat | None]:
    """Watch the other ranks inside; one that is silent for a minute ends this process. None where there are no others.

    Raises:
        RankError: a rank is lost in the middle of a collective.
    """
    if ranks.world == 1:
        yield None
        return
    beat = Heartbeat(ranks)
    failure: BaseException | None = None
    try:
        yield beat
    except BaseException as error:
        failure = error
        if not (isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error))):
            raise
        failure = beat.lost(error)
        raise failure from error
    finally:
        beat.end(failure)


def _gone(who: str, what: str) -> RankError:
    return RankError(who, what, "go on with --resume")


def _leave(error: RankError) -> None:
    """End this process from its thread: the main one may never come back."""
    sys.stderr.write(f"vitlab: {error}\n")
    sys.stderr.flush()
    os._exit(1)
