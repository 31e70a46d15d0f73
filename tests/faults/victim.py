"""A process that forks runs to be killed: torch is imported once, and every run is a process of its own with one thread.

Reads one JSON list a line, ["start" or "resume", folder, options]; answers with the lines "group N", then the run's events as they
happen, then "ended STATUS". With the option "world" so many ranks make the run, in the process group N; a rank that is
killed ends the others.
"""

import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path

import torch

from vitlab.ranks import joined
from vitlab.studies import run
from vitlab.studies.plan import Asked, plan_finetune
from vitlab.train.watcher import Quiet

TINY = ("model.width=16", "model.num_heads=2", "model.depth=2", "model.mlp_dim=32")
EVERYTHING_RANDOM = ("model.dropout=0.1", "augment.flip=true", "train.log_every=3")


def tell(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Told(Quiet):
    """Tells every event at once."""

    def started(self, step, steps, batch_size):
        tell("started", step)

    def stepped(self, step, result):
        tell("stepped", step)

    def evaluated(self, step, values):
        tell("evaluated", step)

    def saved(self, step, seconds):
        tell("saved", step)


def settings(options):
    changes = (*TINY, *EVERYTHING_RANDOM, *options.pop("changes", ()))
    small = {"data": "digits", "image_size": 16, "batch_size": 8, "workers": 0, "device": "cpu"}
    return plan_finetune(Asked(**small | options, changes=changes)).settings


def act(verb, folder, options):
    torch.set_num_threads(1)
    with joined() as ranks:
        told = Told() if ranks.first else Quiet()
        if verb == "start":
            run.start(settings(options), Path(folder), told, lambda line: None, ranks=ranks)
        else:
            say = (lambda line: tell("said", line)) if ranks.first else lambda line: None
            run.resume(Path(folder), told, say, ranks=ranks)


def act_together(verb, folder, options):
    """Do it with `world` ranks; the first that fails ends all."""
    world = options.pop("world", 1)
    if world == 1:
        act(verb, folder, options)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}
    for rank in range(world):
        if os.fork() == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            guarded(act, verb, folder, dict(options))
    statuses = {os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(world)}
    if statuses != {0}:
        os._exit(1)


def guarded(function, *args):
    """Call it and end this process, with 1 where it fails."""
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def alive(group):
    """Return whether a process of the group still runs: those that are killed with their leader end after it."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member = path.read_text().rpartition(")")[2].split()[:3]
            threads = len(list((path.parent / "task").iterdir()))  # the first of them may end before the others
        except OSError:
            continue  # it ended meanwhile
        if member == str(group) and (state != "Z" or threads > 1):
            return True
    return False


def serve():
    torch.set_num_threads(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            tell("group", os.getpid())
            guarded(act_together, *json.loads(line))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        while alive(pid):
            time.sleep(0.01)
        tell("ended", status)


if __name__ == "__main__":
    serve()
