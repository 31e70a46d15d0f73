"""Processes that share work: what hangs or dies is named, what takes its time is not."""

import os
import signal
import threading
import time
from functools import partial

import pytest

from tests.data.packed import SMALL, contents, draw
from vitlab.data import pack as pack_module
from vitlab.data import packer as packer_module
from vitlab.data.crew import at, share
from vitlab.data.folder import Folder
from vitlab.data.pack import pack
from vitlab.errors import PackError


def shared(work, workers=2, items=range(6), patience=0.3):
    return share(work, items, workers, lambda _: None, "image-{}".format, patience)


@pytest.mark.parametrize("workers", [0, 1, 2, 9])
def test_every_item_is_worked_on_once(workers):
    assert sorted(shared(lambda item, _: (item, os.getpid() == parent), workers)) == [
        (n, not workers) for n in range(6)
    ]


parent = os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_hangs_is_named(workers):
    def work(item, advance):
        with at(item):
            time.sleep(1000 * (item == 3))

    begun = time.monotonic()
    with pytest.raises(PackError, match=r"image-3: was not read and decoded within 0.3 seconds; .* the same command"):
        list(shared(work, workers))
    assert time.monotonic() - begun < 5


def test_what_is_at_no_example_may_take_its_time():
    def work(item, advance):
        for index in range(4):
            with at(index):
                time.sleep(0.15)
        time.sleep(0.6 * (item == 3))
        return item

    assert sorted(shared(work)) == list(range(6))


def test_what_was_read_by_a_process_that_died_is_named():
    def work(item, advance):
        with at(item):
            if item == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(PackError, match=r"ended before its work \(SIGKILL\), at image-3; was memory short"):
        list(shared(work))


def test_a_process_that_dies_in_the_middle_of_its_answer_has_died():
    def work(item, advance):
        advance(1)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return bytes(10 << 20)  # more than fits between two processes

    told = share(work, range(1), 1, lambda _: time.sleep(0.6), str)
    with pytest.raises(PackError, match=r"ended before its work \(SIGKILL\)"):
        list(told)


@pytest.mark.parametrize("name", ["ant/0.jpg", "bee/3.png"])
def test_a_file_that_does_not_come_is_named_while_sizes_are_looked_at_and_while_it_packs(tmp_path, monkeypatch, name):
    source, read = draw(tmp_path / "source"), Folder.read
    wanted = pack(str(source), tmp_path / "wanted", SMALL) and contents(tmp_path / "wanted")

    def hang(self, index):
        time.sleep(1000 * (self.key(index) == name))
        return read(self, index)

    if name == "bee/3.png":
        monkeypatch.setattr(packer_module.Packer, "_probed", [1300])
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "read", hang)
        for module in (pack_module, packer_module):
            patched.setattr(module, "share", partial(share, patience=0.5))
        for workers in (1, 2):
            with pytest.raises(PackError, match=f"{name}: was not read and decoded within 0.5 seconds"):
                pack(str(source), tmp_path / "out", SMALL, workers)
    pack(str(source), tmp_path / "out", SMALL, 1)
    if name == "ant/0.jpg":
        assert contents(tmp_path / "out") == wanted
