"""The process that launches the ranks: it names who failed, passes signals on, and knows what to exit with."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vitlab.errors import RankError, SettingsError
from vitlab.train import launch as module
from vitlab.train import stop
from vitlab.train.launch import launch


@pytest.fixture
def ranks(monkeypatch):
    """Return a function that launches ranks which do as the Python `programs` say, and the processes."""
    monkeypatch.setattr(module, "_GRACE_SECONDS", 1.0)
    started = []

    def go(*programs):
        def start(rank, arguments, environment, log):
            del arguments
            with log.open("wb") as file:
                command = [sys.executable, "-S", "-c", f"import os, signal, sys, time\n{programs[rank]}"]
                process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=file, stderr=file)
            started.append(process)
            go.then(rank)
            return process

        monkeypatch.setattr(module, "_start", start)
        return launch(len(programs), [])

    go.started, go.then = started, lambda rank: None
    return go


WAIT = "time.sleep(30)"
HEEDS = """
def leave(number, _):
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
time.sleep(30)
"""


def test_ranks_that_end_well_are_a_success(ranks):
    assert ranks("pass", "time.sleep(0.2)") == 0


def test_the_exit_code_of_the_first_rank_counts(ranks):
    assert ranks("sys.exit(2)", WAIT) == 2
    assert ranks.started[1].returncode == -signal.SIGKILL  # it had its moment


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9"),
        ("print('one'); print('no memory'); sys.exit(3)", "ended with exit code 3; its last words: no memory"),
    ],
)
def test_a_rank_that_is_lost_is_named(ranks, program, what):
    with pytest.raises(RankError) as caught:
        ranks(WAIT, program)
    assert str(caught.value) == f"rank 1: (process {ranks.started[1].pid}) {what}; go on with --resume"


def send(number, *after):
    """Send the signal to this process after each of so many seconds."""

    def work():
        for seconds in after:
            time.sleep(seconds)
            os.kill(os.getpid(), number)

    threading.Thread(target=work, daemon=True).start()


def test_a_request_to_stop_reaches_every_rank(ranks):
    send(signal.SIGTERM, 1.5)
    assert ranks(HEEDS, HEEDS) == 75
    assert [rank.returncode for rank in ranks.started] == [75, 75]


def test_a_request_while_the_ranks_are_started_reaches_every_rank(ranks):
    def stop_after_the_first(rank):
        time.sleep(1.0)  # it has to be ready for the signal
        if rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    ranks.then = stop_after_the_first
    assert ranks(HEEDS, HEEDS) == 75
    assert [rank.returncode for rank in ranks.started] == [75, 75]


def test_far_more_ranks_than_cores_are_refused_before_the_first_is_started(ranks):
    with pytest.raises(SettingsError, match=r"^--processes: 1000 are more than 8 for each of the \d+ cores here; use "):
        ranks(*["pass"] * 1000)
    assert not ranks.started


def test_a_second_request_ends_ranks_that_do_not_heed_the_first(ranks, monkeypatch):
    monkeypatch.setattr(stop, "_ONE_REQUEST_SECONDS", 0.1)
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(30)"
    send(signal.SIGTERM, 1.5, 0.5)
    assert ranks(stubborn, stubborn) == 75
    assert [rank.returncode for rank in ranks.started] == [-signal.SIGKILL] * 2


def test_one_request_that_comes_twice_is_one():
    heard, again = [], []
    request = stop.StopRequest(heard.append, again.append)
    request(signal.SIGTERM)
    request(signal.SIGTERM)
    assert (heard, again, request.number) == ([signal.SIGTERM], [], signal.SIGTERM)
    request._since -= 1.0
    request(signal.SIGINT)
    assert again == [signal.SIGINT] and request.number == signal.SIGTERM


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_exit_codes_say_whether_to_start_again(number, code):
    assert stop.exit_code(number) == code
