import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from vitlab.studies import claim as claims
from vitlab.studies.claim import claim, owner

HOLD = """
import sys, time
from pathlib import Path
from vitlab.studies.claim import claim
with claim(Path(sys.argv[1]), "piece") as held:
    print("held" if held else "refused", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the claim."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_holds_it_and_gives_it_back(tmp_path):
    with claim(tmp_path, "lr-0.01") as held:
        assert held and not held.lost
        assert owner(tmp_path, "lr-0.01") == f"process {os.getpid()} on {socket.gethostname()}"
        with claim(tmp_path, "lr-0.01") as second:
            assert second is None
        with claim(tmp_path, "lr-0.03") as another:
            assert another
    assert owner(tmp_path, "lr-0.01") is None
    assert not list(tmp_path.iterdir())


def test_another_process_is_respected_until_it_is_killed(tmp_path, other):
    with claim(tmp_path, "piece") as held:
        assert held is None
    assert owner(tmp_path, "piece").startswith(f"process {other.pid} on ")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert owner(tmp_path, "piece") is None
    with claim(tmp_path, "piece") as held:
        assert held
    assert not list(tmp_path.iterdir())


def test_a_machine_that_gives_no_sign_of_life_loses_its_claim(tmp_path, monkeypatch):
    left = tmp_path / "piece.1"
    left.write_text("process 7 on elsewhere\n")
    with claim(tmp_path, "piece") as held:
        assert held is None  # it was touched a moment ago
    past = time.time() - claims.PATIENCE_SECONDS - 30
    os.utime(left, (past, past))
    with claim(tmp_path, "piece") as held:
        assert held.path.name == "piece.2"
        assert owner(tmp_path, "piece").startswith(f"process {os.getpid()}")
        (tmp_path / "piece.3").write_text("process 8 on elsewhere\n")  # this machine slept, and another took over
        assert held.lost
    assert [path.name for path in tmp_path.iterdir()] == ["piece.3"]


def test_an_owner_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    with claim(tmp_path, "piece") as held:
        past = time.time() - 1000
        os.utime(held.path, (past, past))
        deadline = time.monotonic() + 10
        while held.path.stat().st_mtime < past + 500 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert held.path.stat().st_mtime > past + 500


def _race(folder, barrier, won):
    barrier.wait()
    with claim(folder, "piece") as held:
        if held:
            with won.get_lock():
                won.value += 1
        barrier.wait()  # nobody gives it back before all have tried


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_at_once_one_wins(tmp_path, left_behind):
    if left_behind:
        (tmp_path / "piece.1").write_text(f"process 7 on {socket.gethostname()}\n")
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(8), context.Value("i", 0)
    racers = [context.Process(target=_race, args=(tmp_path, barrier, won)) for _ in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
        assert racer.exitcode == 0
    assert won.value == 1
    assert not list(tmp_path.iterdir())
