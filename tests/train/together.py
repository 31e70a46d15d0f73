"""Ranks in a test: forked from the process of the tests, which has imported everything, and they meet over gloo."""

import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import torch

from vitlab.ranks import joined


class Ended(Exception):  # noqa: N818  (what a rank did, which a test may want)
    """A rank ended without an answer: `codes` are the exit codes of all, `said` is what they wrote to standard error."""

    def __init__(self, codes, said):
        super().__init__(codes, said)
        self.codes, self.said = codes, said


def forked(world, work, environment):
    """Fork `world` ranks that each do `work(ranks)` and write the answer; return their process ids and their folder."""
    folder, pids = Path(tempfile.mkdtemp()), []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.environ |= environment | {"WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.dup2(os.open(folder / f"{rank}.err", os.O_CREAT | os.O_WRONLY), 2)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                torch.set_num_threads(1)
                signal.alarm(20)  # no rank outlives a test that hangs
                with joined() as ranks:
                    answer = work(ranks)
                    ranks.wait()
                (folder / f"{rank}.json").write_text(json.dumps(answer))
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        pids.append(pid)
    return pids, folder


def meeting_place():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


@contextmanager
def agent():
    """Keep a store as torchrun does, in a process of its own that outlives the ranks; yield the environment that says so."""
    command = (
        "import torch.distributed as d, sys; s = d.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)"
    )
    command += "; print(s.port, flush=True); sys.stdin.read()"
    with Popen([sys.executable, "-c", command], stdin=PIPE, stdout=PIPE, text=True) as process:
        port = process.stdout.readline().strip()
        try:
            yield {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
        finally:
            process.kill()


def together(world, work, environment=None):
    """Return what `work(ranks)`, plain JSON values, is on each of `world` ranks."""
    pids, folder = forked(world, work, environment or meeting_place())
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise Ended(codes, [(folder / f"{rank}.err").read_text() for rank in range(world)])
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
