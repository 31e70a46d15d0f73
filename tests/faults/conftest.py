"""The process whose runs are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


class Runs:
    """Starts and resumes runs in processes of their own, one after the other, and kills them."""

    def __init__(self):
        command = [sys.executable, str(Path(__file__).parent / "victim.py")]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __call__(self, verb, folder, kill_after=None, delay=0.0, **options):
        """Return the run's exit status and events; with `kill_after` it is killed `delay` seconds after that event."""
        self.server.stdin.write(json.dumps([verb, str(folder), options]) + "\n")
        self.server.stdin.flush()
        pid, events = None, []
        for line in self.server.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "ended":
                return int(rest), events
            if word == "group":
                pid = int(rest)
            else:
                events.append((word, rest))
            if kill_after is not None and pid is not None and len(events) >= kill_after:
                time.sleep(delay)
                os.killpg(pid, signal.SIGKILL)
                kill_after = None
        raise AssertionError(f"the process of the runs ended: {self.server.poll()}")

    def killed_often(self, folder, kills, luck, worlds=(1,), **options):
        """Start a run and kill it `kills` times at random moments; return how each ended and the steps begun from.

        Every start and restart is on a random number of ranks among `worlds`.
        """
        rng, ends, begun = random.Random(luck), [], []
        for _ in range(kills):
            verb = "resume" if (folder / "config.json").exists() else "start"
            after = rng.randint(0, 16)  # some more than one checkpoint takes, which is written meanwhile
            delay = (
                rng.random() ** 3 * 0.05 if after else rng.random() * 0.3
            )  # before the first event: while it is set up
            world = rng.choice(worlds) if len(worlds) > 1 else worlds[0]
            status, events = self(verb, folder, after, delay, world=world, **options)
            assert status in (0, -signal.SIGKILL)
            ends.append(status)
            begun += [int(rest) for word, rest in events if word == "started"]
        return ends, begun

    def close(self):
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


@pytest.fixture(scope="session")
def runs():
    opened = Runs()
    yield opened
    opened.close()
