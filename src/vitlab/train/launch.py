"""Launch: several ranks on this machine, each a process of the same command; what torchrun does, in one line and without its log.

This file imports no torch: the process that launches only waits.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vitlab.errors import RankError, SettingsError
from vitlab.train.stop import exit_code, stop_request

LAUNCHER = "VITLAB_LAUNCHER"
"""The environment variable with the process that launched a rank: a rank does not outlive it."""
MOST_A_CORE = 8
"""More processes for each core than this are a slip of the finger, which would leave the machine without memory."""
_GRACE_SECONDS = 15.0
_POLL_SECONDS = 0.05


def launch(processes: int, arguments: Sequence[str], remedy: str = "go on with --resume") -> int:
    """Run `vitlab` with `arguments` as `processes` ranks and return the exit code, that of the first rank where it has one.

    The first rank has the terminal. What the others say is kept until one of them fails. Each gets an equal part of the cores.
    A signal that asks for a stop is passed on to all, a second one ends them at once. `remedy` says how to go on without a rank.

    Raises:
        SettingsError: the machine is too small for so many.
        RankError: a rank was killed, or failed where the first one did not.
    """
    if processes > MOST_A_CORE * (cores := _cores()):
        what = f"{processes} are more than {MOST_A_CORE} for each of the {cores} cores here"
        raise SettingsError("--processes", what, f"use {cores}, or one a GPU")
    with tempfile.TemporaryDirectory(prefix="vitlab-") as logs:
        paths = [Path(logs) / f"rank-{rank}.log" for rank in range(processes)]
        environment, ranks = _environment(processes), list["subprocess.Popen[bytes]"]()
        request = stop_request(lambda number: _send(ranks, number), lambda _: _send(ranks, signal.SIGKILL))
        try:
            with request as stop:
                for rank, path in enumerate(paths):
                    ranks.append(_start(rank, arguments, environment, path))
                if stop.number:  # some may have been started after it
                    _send(ranks, stop.number)
                lost = _wait(ranks)
        finally:
            _send(ranks, signal.SIGKILL)
        code = ranks[0].returncode
        if code >= 0 and (code or lost is None):
            return code
        if stop.number:  # a second request
            return exit_code(stop.number)
        assert lost is not None
        raise RankError(f"rank {lost}", _story(ranks[lost], paths[lost]), remedy)


def _environment(processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        LAUNCHER: str(os.getpid()),
    }
    return {"OMP_NUM_THREADS": str(max(1, _cores() // processes)), **os.environ, **ours}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(rank: int, arguments: Sequence[str], environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "vitlab", *arguments]
    environment = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    if rank == 0:
        return subprocess.Popen(command, env=environment, start_new_session=True)
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=file, stderr=file)


def _send(ranks: Sequence["subprocess.Popen[bytes]"], number: int) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(number)


def _wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """Return which rank failed first once all have ended; the others have a moment for it when one has."""
    lost, deadline = None, float("inf")
    while None in [rank.poll() for rank in ranks]:  # every one: the first may wait for one that is dead
        failed = [number for number, rank in enumerate(ranks) if rank.returncode]
        if failed and lost is None:
            lost, deadline = failed[0], time.monotonic() + _GRACE_SECONDS
        if time.monotonic() > deadline:
            _send(ranks, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    failed = [number for number, rank in enumerate(ranks) if rank.returncode]
    return lost if lost is not None else next(iter(failed), None)


def _story(rank: "subprocess.Popen[bytes]", log: Path) -> str:
    code = rank.returncode
    what = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    words = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"(process {rank.pid}) {what}" + (f"; its last words: {words[-1]}" if words else "")
