import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import islice, product

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from vitlab.data import workers
from vitlab.data.digits import Digits
from vitlab.data.loader import EvalBatches, Pieces, TrainBatches, load
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Subset
from vitlab.data.transforms import Augment
from vitlab.data.workers import ahead, at
from vitlab.errors import WorkerError
from vitlab.ranks import Ranks

SPEC = ImageSpec(height=8, width=8)


class Named:
    """A source that knows what its examples are called."""

    classes, labels = ("a",), np.zeros(100, np.int64)

    def __len__(self):
        return 100

    def __str__(self):
        return "photos/"

    def key(self, index):
        return f"a/{index}.jpg"

    def read(self, index):
        raise AssertionError("what hangs must not be read again")


PHOTOS = Named()


class Items(Dataset):
    """Numbers; at one of them the worker does something else."""

    def __init__(self, bad: int, act) -> None:
        self.bad, self.act = bad, act

    def __getitem__(self, index: int) -> int:
        at(index)
        if index == self.bad:
            self.act()
        at(-1)
        return index


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(3600)


def fail() -> None:
    raise RuntimeError("something else")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_items_come_in_order_whoever_makes_them(count):
    assert list(ahead(Items(-1, fail), range(3, 20), count, PHOTOS)) == list(range(3, 20))


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_is_killed_is_named_with_its_example(count):
    with pytest.raises(WorkerError, match=r"photos/: a data worker ended, at a/7\.jpg.*--resume") as error:
        list(ahead(Items(7, die), range(20), count, PHOTOS))
    assert error.value.exit_code == 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_hangs_is_named_with_its_example_and_ended(count, monkeypatch):
    monkeypatch.setattr(workers, "STALL_SECONDS", 2.0)
    before = set(multiprocessing.active_children())
    with pytest.raises(WorkerError, match=r"has not come further for 2 seconds, at a/7\.jpg;"):
        list(ahead(Items(7, hang), range(20), count, PHOTOS))
    deadline = time.monotonic() + 10
    while set(multiprocessing.active_children()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(multiprocessing.active_children()) <= before


def test_a_slow_worker_is_no_hanging_one(monkeypatch):
    monkeypatch.setattr(workers, "STALL_SECONDS", 2.0)

    class Slow(Dataset):
        def __getitem__(self, index: int) -> int:
            for part in range(4):
                at(10 * index + part)
                time.sleep(0.8)
            return index

    assert list(ahead(Slow(), range(1), 1, PHOTOS)) == [0]


def test_time_that_the_reader_takes_is_not_the_workers(monkeypatch):
    monkeypatch.setattr(workers, "STALL_SECONDS", 1.5)
    items = ahead(Items(-1, fail), range(8), 1, PHOTOS)
    assert next(items) == 0
    time.sleep(2.5)
    assert list(items) == list(range(1, 8))


def test_a_worker_that_dies_does_not_disturb_what_this_process_does():
    items = ahead(Items(2, die), range(20), 1, PHOTOS)
    next(items)
    for _ in range(20):
        time.sleep(0.05)  # would raise here
    with pytest.raises(WorkerError):
        list(items)


def test_an_error_of_the_code_stays_that_error():
    with pytest.raises(RuntimeError, match="something else"):
        list(ahead(Items(1, fail), range(3), 1, PHOTOS))


def test_a_thread_may_load_too():
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(ahead(Items(-1, fail), range(5), 1, PHOTOS)))
    thread.start()
    thread.join(60)
    assert found == list(range(5))


def make_pieces(size: int, count: int = 9) -> TrainBatches:
    source = Subset(Digits(), range(count))
    return TrainBatches(source, source.labels, SPEC, Augment(), size, 3)


def digest(size: int, world: int, count: int, steps: int = 4, batch_size: int = 8) -> str:
    """What training sees in `steps` steps when the pieces of the ranks are put together."""
    seen, in_step = hashlib.sha256(), batch_size // size
    places = [Pieces(0, steps, in_step, Ranks(rank, world)) for rank in range(world)]
    parts = [load(make_pieces(size), each, count) for each in places]
    for _ in range(steps):
        pieces = [batch for part in parts for batch in islice(part, in_step // world)]
        seen.update(torch.cat([batch.images for batch in pieces]).numpy().tobytes())
        seen.update(torch.cat([batch.labels for batch in pieces]).numpy().tobytes())
        seen.update("\n".join(key for batch in pieces for key in batch.keys).encode())
    return seen.hexdigest()


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_any_number_of_ranks_and_workers_and_any_size_of_pieces_sees_the_same_batches(world, count, size):
    if world * count <= 4:  # more processes say no more
        assert digest(size, world, count) == digest(8, 1, 0)


def test_the_pieces_of_a_rank_are_a_run_in_every_step():
    assert list(Pieces(2, 4, 4, Ranks(1, 2))) == [10, 11, 14, 15]
    assert list(Pieces(0, 2, 3)) == list(range(6)) and Pieces(0, 2, 3)[1:3] == [1, 2]
    assert len(Pieces(5, 5, 4)) == len(Pieces(6, 5, 4)) == 0


def test_ranks_evaluate_every_example_once(make_source):
    source = make_source(11)
    for world in (1, 2, 4):
        ranks = [EvalBatches(source, SPEC, 2, Ranks(rank, world)) for rank in range(world)]
        assert len({len(rank) for rank in ranks}) == 1  # none waits for another for ever
        rounds = zip(*(load(rank, range(len(rank))) for rank in ranks), strict=True)
        batches = [batch for batches in rounds for batch in batches]
        assert {batch.images.shape[0] for batch in batches} == {2}
        assert [key for batch in batches for key in batch.keys] == [f"image-{index}" for index in range(11)]
        assert sum(int(batch.valid.sum()) for batch in batches) == 11
        labels = np.concatenate([batch.labels[batch.valid].numpy() for batch in batches])
        assert labels.tolist() == source.labels.tolist()


def record(path, ranks: Ranks, count: int, steps: int) -> None:
    """Write what one rank sees, in pieces of two: a line for every row of every step."""
    batches, places = make_pieces(2, 1000), Pieces(0, steps, 4, ranks)
    with path.open("w") as file:
        for number, batch in zip(places, load(batches, places, count), strict=True):
            for row, key in enumerate(batch.keys):
                image = hashlib.sha256(batch.images[row].numpy().tobytes()).hexdigest()
                file.write(f"{2 * number + row:06d} {key} {int(batch.labels[row])} {image}\n")


@pytest.mark.slow
def test_five_hundred_steps_are_the_same_on_any_number_of_processes(tmp_path):
    """1, 2 and 4 processes, each with 0, 1 and 3 workers; four epochs of a thousand images."""
    context = multiprocessing.get_context("fork")
    checksums: dict[tuple[int, int], str] = {}
    for world, count in product((1, 2, 4), (0, 1, 3)):
        paths = [tmp_path / f"{world}-{count}-{rank}" for rank in range(world)]
        ranks = [
            context.Process(target=record, args=(path, Ranks(rank, world), count, 500))
            for rank, path in enumerate(paths)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        lines = sorted(line for path in paths for line in path.read_text().splitlines())
        assert len(lines) == 4000
        checksums[world, count] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    print(checksums)
    assert len(set(checksums.values())) == 1


def test_wherever_a_worker_dies_it_is_named():
    """Also while it hands a batch over, when what this process sees is a line that was cut."""

    class Slow(Dataset):
        def __getitem__(self, index: int) -> torch.Tensor:
            at(index)
            time.sleep(0.002)
            made = torch.zeros(300_000, dtype=torch.uint8)
            at(-1)
            return made

    rng = np.random.default_rng(0)
    for _ in range(8):
        items = ahead(Slow(), range(10_000), 2, PHOTOS)
        next(items)
        pid = multiprocessing.active_children()[0].pid
        threading.Timer(rng.uniform(0, 0.2), os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(WorkerError, match="a data worker ended"):
            for _ in items:
                pass


def test_a_worker_that_the_system_has_stopped_is_found_and_ended(monkeypatch):
    """It does not even take part in handing over what it had made."""
    monkeypatch.setattr(workers, "STALL_SECONDS", 2.0)
    items = ahead(Items(7, lambda: os.kill(os.getpid(), signal.SIGSTOP)), range(20), 1, PHOTOS)
    with pytest.raises(WorkerError, match=r"has not come further for 2 seconds, at a/7\.jpg"):
        list(items)


def test_a_reader_that_turns_away_ends_its_workers():
    before = set(multiprocessing.active_children())
    items = ahead(Items(7, hang), range(20), 2, PHOTOS)
    next(items)
    items.close()
    deadline = time.monotonic() + 5
    while set(multiprocessing.active_children()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(multiprocessing.active_children()) <= before


UNFINISHED = """
from vitlab.data.digits import Digits
from vitlab.data.loader import EvalBatches, load
from vitlab.data.preprocess import ImageSpec

batches = EvalBatches(Digits(), ImageSpec(height=28, width=28), 8)
read = load(batches, range(len(batches)), workers=2)
next(read)
raise SystemExit("enough")
"""


def test_a_program_that_ends_while_it_reads_does_not_wait_for_its_workers():
    done = subprocess.run([sys.executable, "-c", UNFINISHED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "enough\n")
