"""Team: processes of this machine that share the pieces of studies, and the one that started them, which only watches.

Each is a process of the same command, told by the environment that it is one of a team. They agree by the claims in the folder.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console

from vitlab.errors import RankError, SettingsError
from vitlab.studies.board import Board
from vitlab.studies.cell import silent
from vitlab.studies.conduct import conduct
from vitlab.studies.study import Edition, Scale
from vitlab.train.launch import MOST_A_CORE
from vitlab.train.loop import Interrupted
from vitlab.train.stop import TRY_AGAIN, exit_code, stop_request

TEAM = "VITLAB_TEAM"
"""The environment variable with the process that started a team: none of it outlives that one."""
POLL_SECONDS = 0.5
_GRACE_SECONDS = 30.0
"""How long a member may take to save what it is at when it is asked to stop."""

Say = Callable[[str], None]


def is_member() -> bool:
    """Return whether this process is one of a team."""
    return TEAM in os.environ


def size_for(scale: Scale, asked: int | None) -> int:
    """Return how many processes work at once: those `asked` for, else a core each in miniature, and one elsewhere.

    Raises:
        SettingsError: the machine is too small for so many.
    """
    cores = _cores()
    if asked is not None and asked > MOST_A_CORE * cores:
        what = f"{asked} are more than {MOST_A_CORE} for each of the {cores} cores here"
        raise SettingsError("--processes", what, f"use {cores}")
    return asked or (cores if scale == "miniature" else 1)


def use_threads(scale: Scale) -> None:
    """Compute with one thread in miniature, so that the numbers do not depend on how many processes there are."""
    if scale == "miniature":
        torch.set_num_threads(1)


def join(editions: Sequence[Edition], out: Path) -> int:
    """Work as one of a team, in silence, and return the exit code; end when the process that started it is gone."""
    threading.Thread(target=_follow, args=(os.environ[TEAM],), daemon=True).start()
    try:
        conduct(editions, out, silent(), lambda _: None)
    except Interrupted as stop:
        return stop.exit_code
    return 0


def lead(board: Board, processes: int, arguments: Sequence[str], console: Console, say: Say) -> None:
    """Start a team with the `arguments` of this command, show how far it is, and return when nothing is left to do.

    A member that dies is said; the others go on with its piece.

    Raises:
        Interrupted: a signal asked for a stop; it was passed on, and what was being done is saved.
        RankError: all have died.
    """
    with tempfile.TemporaryDirectory(prefix="vitlab-") as logs:
        members: dict[Path, subprocess.Popen[bytes]] = {}
        request = stop_request(lambda number: _send(members, number), lambda _: _send(members, signal.SIGKILL))
        try:
            with request as stop:
                for number in range(processes):
                    log = Path(logs) / f"{number}.log"
                    members[log] = _start(arguments, processes, log)
                if stop.number:
                    _send(members, stop.number)
                lost = _watch(members, board, console, say)
            if stop.number:
                raise Interrupted(board.done, stop.number)
            if len(lost) == len(members):
                raise RankError("every process", f"is lost, the last one {lost[-1]}", "the same command goes on")
        finally:
            _send(members, signal.SIGKILL)
            for member in members.values():
                member.wait()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _watch(members: dict[Path, "subprocess.Popen[bytes]"], board: Board, console: Console, say: Say) -> list[str]:
    """Show how far the work is until all members have ended; return how those were lost that were."""
    lost: dict[int, str] = {}
    with console.status("") if console.is_terminal else nullcontext() as status:
        while None in [member.poll() for member in members.values()]:
            for line in board.look():
                say(f"{board.standing()}: {line}")
            if status is not None:
                status.update(f"{board.standing()}: {', '.join(board.working())}")
            _say_lost(members, lost, say)
            time.sleep(POLL_SECONDS)
    for line in board.look():
        say(f"{board.standing()}: {line}")
    _say_lost(members, lost, say)
    return list(lost.values())


def _say_lost(members: dict[Path, "subprocess.Popen[bytes]"], lost: dict[int, str], say: Say) -> None:
    """Say which members have died since the last time."""
    for log, member in members.items():
        code = member.returncode
        if code is None or code in (0, exit_code(signal.SIGINT), TRY_AGAIN) or member.pid in lost:
            continue
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        words = log.read_text(errors="replace").strip().splitlines()
        lost[member.pid] = f"(process {member.pid}) {how}" + (f"; its last words: {words[-1]}" if words else "")
        say(f"lost     {lost[member.pid]}; what it was at is left to the others")


def _start(arguments: Sequence[str], processes: int, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "vitlab", *arguments]
    threads = {"OMP_NUM_THREADS": str(max(1, _cores() // processes))}
    environment = {**threads, **os.environ, TEAM: str(os.getpid())}
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=file, stderr=file)


def _send(members: dict[Path, "subprocess.Popen[bytes]"], number: int) -> None:
    for member in members.values():
        if member.poll() is None:
            member.send_signal(number)


def _follow(parent: str) -> None:
    """End this process in order when it has another parent than the one that started it."""
    while str(os.getppid()) == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)
