import hashlib
import multiprocessing
import os
import signal
import threading
import time
from itertools import product

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from vitlab.data import workers
from vitlab.data.digits import Digits
from vitlab.data.loader import EvalBatches, Share, TrainBatches, load
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Subset
from vitlab.data.transforms import Augment
from vitlab.data.workers import ahead, at
from vitlab.errors import SettingsError, WorkerError

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


def digest(batches: list[TrainBatches], steps: int, count: int) -> str:
    """What training sees in `steps` steps when the ranks' rows are put together."""
    seen = hashlib.sha256()
    for ranks in zip(*(load(part, range(steps), count) for part in batches), strict=True):
        seen.update(torch.cat([batch.images for batch in ranks]).numpy().tobytes())
        seen.update(torch.cat([batch.labels for batch in ranks]).numpy().tobytes())
        seen.update("\n".join(key for batch in ranks for key in batch.keys).encode())
    return seen.hexdigest()


def shared(world: int, batch_size: int = 8) -> list[TrainBatches]:
    source = Subset(Digits(), range(9))
    how = (source, source.labels, SPEC, Augment(), batch_size, 3)
    return [TrainBatches(*how, Share(rank, world)) for rank in range(world)]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_ranks_and_workers_sees_the_same_batches(world, count):
    if world * count <= 4:  # more processes say no more
        assert digest(shared(world), 4, count) == digest(shared(1), 4, 0)


def test_ranks_evaluate_every_example_once(make_source):
    source = make_source(11)
    for world in (1, 2, 4):
        ranks = [EvalBatches(source, SPEC, 4, Share(rank, world)) for rank in range(world)]
        batches = [batch for rank in ranks for batch in load(rank, range(len(rank)))]
        assert {batch.images.shape[0] for batch in batches} == {4 // world}
        keys = [key for batch in batches for key in batch.keys]
        assert sorted(keys) == sorted(f"image-{index}" for index in range(11))
        assert sum(int(batch.valid.sum()) for batch in batches) == 11
        labels = np.concatenate([batch.labels[batch.valid].numpy() for batch in batches])
        assert sorted(labels) == sorted(source.labels)


def test_a_batch_that_the_ranks_cannot_divide_is_refused(make_source):
    with pytest.raises(SettingsError, match=r"--batch-size: 6 cannot be divided among 4 processes"):
        EvalBatches(make_source(3), SPEC, 6, Share(0, 4))


def record(path, share: Share, count: int, steps: int) -> None:
    """Write what one rank sees: a line for every row of every step."""
    source = Subset(Digits(), range(1000))
    batches = TrainBatches(source, source.labels, SPEC, Augment(), 8, 3, share)
    with path.open("w") as file:
        for step, batch in enumerate(load(batches, range(steps), count)):
            for row, key in enumerate(batch.keys):
                image = hashlib.sha256(batch.images[row].numpy().tobytes()).hexdigest()
                place = step * 8 + share.rows(8)[row]
                file.write(f"{place:06d} {key} {int(batch.labels[row])} {image}\n")


@pytest.mark.slow
def test_five_hundred_steps_are_the_same_on_any_number_of_processes(tmp_path):
    """1, 2 and 4 processes, each with 0, 1 and 3 workers; four epochs of a thousand images."""
    context = multiprocessing.get_context("fork")
    checksums: dict[tuple[int, int], str] = {}
    for world, count in product((1, 2, 4), (0, 1, 3)):
        paths = [tmp_path / f"{world}-{count}-{rank}" for rank in range(world)]
        ranks = [
            context.Process(target=record, args=(path, Share(rank, world), count, 500))
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
