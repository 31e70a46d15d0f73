"""Packing is killed, its disk fills, its processes die: what has a name is whole, and the same command goes on."""

import errno
import fcntl
import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.data.packed import SMALL, contents, draw
from tests.end_to_end.conftest import environment, vitlab
from tests.faults.injection import WHEN, Fault
from vitlab.data import packer
from vitlab.data.index import JOB, MANIFEST
from vitlab.data.pack import pack
from vitlab.errors import DataError, PackError


@pytest.fixture
def wanted(tmp_path):
    """What an undisturbed packing of the source makes."""
    for split in ("train", "val"):
        draw(tmp_path / "source" / split, 4)
    pack(str(tmp_path / "source"), tmp_path / "wanted", SMALL)
    return contents(tmp_path / "wanted")


def in_a_child(work):
    """Do `work` in a fork of this process and return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def go_on(source, out):
    """Give the same command again."""
    try:
        pack(source, out, SMALL, 2)
    except DataError as error:
        assert "is packed already" in str(error)  # it was interrupted after all was done


def named(out, wanted):
    """Whatever has its final name is the same as in an undisturbed packing."""
    found = {
        name: data for name, data in contents(out).items() if not any(part.startswith(".") for part in Path(name).parts)
    }
    return {name: wanted[name] for name in found} == found


@pytest.mark.parametrize("code", [None, errno.ENOSPC], ids=["killed", "full"])
@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_fault_at_any_operation(tmp_path, wanted, monkeypatch, code, every):
    source, seen = str(tmp_path / "source"), []
    with monkeypatch.context() as patched:
        counted = Fault(patched)
        pack(source, tmp_path / "counted", SMALL)
        count = len(counted.names)
    for at in range(1, count + 1, every):
        when = WHEN[at % 3]
        out = tmp_path / f"out-{at}"

        def work(out=out, at=at, when=when):
            Fault(monkeypatch, at, when, code)
            try:
                pack(source, out, SMALL)
            except PackError as error:
                assert "No space left on device); make room" in str(error)
                os._exit(7)

        seen.append(os.waitstatus_to_exitcode(os.waitpid(in_a_child(work), 0)[1]))
        assert named(out, wanted), (at, when)
        go_on(source, out)
        assert contents(out) == wanted, (at, when)
    assert count > 20 and set(seen) <= ({9} if code is None else {7})


def test_killed_at_any_moment(tmp_path, wanted):
    source, rng, out, ends = str(tmp_path / "source"), random.Random(0), tmp_path / "out", []
    while 0 not in ends[-1:]:
        there, more = files_in(out), rng.randint(1, 3)
        pid, end = in_a_child(partial(pack, source, out, SMALL, 1 + len(ends) % 2)), (0, 0)
        while end == (0, 0):
            if files_in(out) >= there + more:
                os.kill(pid, signal.SIGKILL)
            end = os.waitpid(pid, os.WNOHANG)
        ends.append(os.waitstatus_to_exitcode(end[1]))
        assert named(out, wanted)
        released(out)
    assert contents(out) == wanted and set(ends) == {0, -signal.SIGKILL}


def files_in(folder):
    return sum(len(files) for _, _, files in os.walk(folder))


def released(out, seconds=20.0):
    """Wait until no process holds the folder: those of a parent that was killed end by themselves."""
    lock = out / JOB
    deadline = time.monotonic() + seconds
    while lock.with_name("lock").exists():
        with lock.with_name("lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline, "a process goes on without its parent"
                time.sleep(0.02)


@pytest.mark.parametrize("limit", [100, 3_000, SMALL - 3_000])
def test_a_disk_that_fills(tmp_path, wanted, limit):
    source, out = str(tmp_path / "source"), tmp_path / "out"
    (tmp_path / "said").write_text("x" * 4000)  # a file that is there may be written into, if it does not grow

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            pack(source, out, SMALL, 2)
        except PackError as error:
            os._exit(
                7 if "cannot be written (File too large); make room; the same command goes on" in str(error) else 8
            )

    assert os.waitstatus_to_exitcode(os.waitpid(in_a_child(work), 0)[1]) == 7
    assert named(out, wanted) and not list(out.rglob("*.tar.part")) and not list(out.rglob(MANIFEST))
    pack(source, out, SMALL, 2)
    assert contents(out) == wanted


@pytest.mark.parametrize("death", ["killed", "left"])
def test_a_worker_process_that_dies_is_named(tmp_path, wanted, monkeypatch, death):
    parent, real = os.getpid(), packer.decode

    def deadly(data, name, limits):
        if name.endswith("bee/3.png") and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL) if death == "killed" else os._exit(3)
        return real(data, name, limits)

    monkeypatch.setattr(packer, "decode", deadly)
    with pytest.raises(PackError, match=r"SIGKILL" if death == "killed" else "exit code 3"):
        pack(str(tmp_path / "source"), tmp_path / "out", SMALL, 2)
    monkeypatch.undo()
    assert named(tmp_path / "out", wanted)
    pack(str(tmp_path / "source"), tmp_path / "out", SMALL, 2)
    assert contents(tmp_path / "out") == wanted


def test_a_disk_that_gives_back_other_bytes_is_found_out(tmp_path, wanted, monkeypatch):
    real = os.fsync

    def rots(handle):
        real(handle)
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.endswith("shard-000001.tar.part"):
            with open(path, "r+b") as file:
                file.seek(1500)
                file.write(b"?")

    monkeypatch.setattr(os, "fsync", rots)
    with pytest.raises(PackError, match="reads back other bytes than were written"):
        pack(str(tmp_path / "source"), tmp_path / "out", SMALL)
    assert named(tmp_path / "out", wanted)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_in_a_terminal(tmp_path, number):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "vitlab",
        "data",
        "pack",
        "fractals",
        out,
        "--shard-size",
        "100KB",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(out.glob("shard-*.tar")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.kill(process.pid, number)
    _, said = process.communicate()
    released(out)
    assert "Traceback" not in said and not (out / MANIFEST).exists()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said.splitlines()[-2:] == ["what is packed is kept; the same command goes on", "interrupted"]
        assert not list(out.glob(".*.part"))


def test_from_the_command_line(tmp_path, wanted):
    arguments = ("data", "pack", "source", "out", "--shard-size", "8KB")
    done = vitlab(*arguments, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0].startswith("packed   out/train: 12 images, 3 classes, ")
    assert contents(tmp_path / "out") == wanted
    done = vitlab(*arguments, cwd=tmp_path)
    assert done.code == 2 and done.error == "error: out: is packed already; choose another folder"
    (tmp_path / "source/train/bee/3.png").write_bytes(b"?")
    done = vitlab(*arguments[:3], "again", *arguments[4:], "--workers", 2, cwd=tmp_path)
    assert done.code == 1 and "1 of 24 images cannot be used" in done.error and "train/bee/3.png: " in done.error
    done = vitlab(*arguments[:3], "again", *arguments[4:], "--on-bad-image", "skip", cwd=tmp_path)
    assert done.code == 0 and done.err.startswith("skipped train/bee/3.png: ") and "11 images, 1 left out" in done.out
