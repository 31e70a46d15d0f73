"""A process that forks runs to be killed: torch is imported once, and every run is a process of its own with one thread.

Reads one JSON list a line, ["start" or "resume", folder, options]; answers with the lines "pid N", then the run's events as they
happen, then "ended STATUS".
"""

import json
import os
import sys
import traceback
from pathlib import Path

import torch

from vitlab.studies import run
from vitlab.studies.plan import Asked, plan_finetune
from vitlab.train.progress import Quiet

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
    if verb == "start":
        run.start(settings(options), Path(folder), Told(), lambda line: None)
    else:
        run.resume(Path(folder), Told(), lambda line: tell("said", line))


def serve():
    torch.set_num_threads(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                act(*json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        tell("pid", pid)
        tell("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    serve()
