"""Ranks: the processes that work on one model together, and what they tell each other."""

import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=10)
"""How long a collective waits; a rank that is dead or hangs is noticed, and named, long before (see `vitlab.train.heartbeat`)."""
_SETUP = timedelta(days=1)  # rank 0 may look through a large data set first
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Ranks:
    """One of `world` processes: its `rank` among all, and its number on this machine, which is that of its GPU.

    `meeting` begins the names under which they keep what they tell each other.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    meeting: str = ""
    _store: Any = field(default=None, repr=False, compare=False)
    _told: Any = field(default_factory=count, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the rank that speaks and writes."""
        return self.rank == 0

    def share(self, of: int) -> range:
        """Return which of `of` pieces, a multiple of `world`, are this rank's: its part in one run."""
        each = of // self.world
        return range(self.rank * each, (self.rank + 1) * each)

    def topic(self) -> str:
        """Return a key that every rank gets, if all ask in the same order, and that was never used before."""
        return f"topic/{next(self._told)}"

    def tell(self, value: Any = None) -> Any:
        """Return on every rank what the first gives: plain JSON values. The others wait for it, however long that takes."""
        if self.world == 1:
            return value
        key, store = self.topic(), self._store
        if self.first:
            store.set(key, json.dumps(value))
            return value
        store.wait([key], _SETUP)
        return json.loads(store.get(key))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return `tensor` with those of the other ranks added, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def rows(self, tensor: Tensor) -> Tensor:
        """Return the rows of every rank's `tensor`, which have one shape, in the order of the ranks."""
        if self.world == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def words(self, mine: Sequence[str]) -> list[list[str]]:
        """Return the strings of every rank, in the order of the ranks."""
        if self.world == 1:
            return [list(mine)]
        store, key = self._store, self.topic()
        store.set(f"{key}/{self.rank}", json.dumps(list(mine)))
        return [json.loads(store.get(f"{key}/{rank}")) for rank in range(self.world)]

    def add_across(self, tensors: Sequence[Tensor]) -> None:
        """Add the `tensors` of all ranks, a power of two, in place and in the order of a binary tree: the same bits on each.

        In round i a rank exchanges with the one whose number differs in bit i, and a + b has the bits of b + a.
        """
        distance = 1
        while distance < self.world:
            other = self.rank ^ distance
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            theirs = torch.empty_like(flat)
            jobs = [dist.P2POp(dist.isend, flat, other), dist.P2POp(dist.irecv, theirs, other)]
            for job in cast(list[Any], dist.batch_isend_irecv(jobs)):
                job.wait()
            for tensor, part in zip(tensors, theirs.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.add_(part.view_as(tensor))
            distance *= 2

    def report(self, topic: str, mine: Any) -> list[Any]:
        """Return what every rank says on `topic`, plain JSON values, on the first one, elsewhere nothing: in any thread."""
        if self.world == 1:
            return [mine]
        store, keys = self.connect(), [f"{topic}/{rank}" for rank in range(self.world)]
        store.set(keys[self.rank], json.dumps(mine))
        if not self.first:
            return []
        store.wait(keys, PATIENCE)
        return [json.loads(store.get(key)) for key in keys]

    def connect(self) -> Any:
        """Return another store of keys and values that all ranks see, for a thread of its own."""
        return cast(Any, dist).PrefixStore(self.meeting, _connected(host=False))

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


@contextmanager
def joined() -> Generator[Ranks]:
    """Join the ranks that the environment names (torchrun's RANK, WORLD_SIZE, LOCAL_RANK and the place where they meet)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    rank = int(os.environ["RANK"])
    store, meeting = _meet(rank, world)
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, local, meeting, store)
    finally:
        dist.destroy_process_group()


def _meet(rank: int, world: int) -> tuple[Any, str]:
    """Return a store that this start of the ranks has for itself, and how its keys begin.

    The store of torchrun's agent outlives restarts, with all that ranks have said there before, and the number of restarts may
    differ between the agents of two machines. So every rank shows the first a word that nobody used before, and gets for it the
    one that the first has chosen.
    """
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    store, mine = _connected(host=rank == 0 and not hosted), uuid4().hex
    if rank > 0:
        store.set(f"vitlab/hello/{rank}", mine)
        store.wait([f"vitlab/welcome/{mine}"], PATIENCE)
        mine = store.get(f"vitlab/welcome/{mine}").decode()
        store.set(f"vitlab/{mine}/{rank}", "here")
    missing = set(range(1, world)) if rank == 0 else set[int]()
    while missing:
        for other in sorted(missing):
            if store.check([f"vitlab/{mine}/{other}"]):
                missing.remove(other)
            elif store.check([f"vitlab/hello/{other}"]):
                store.set(f"vitlab/welcome/{store.get(f'vitlab/hello/{other}').decode()}", mine)
        time.sleep(_POLL_SECONDS)
    meeting = f"vitlab/{mine}/"
    return cast(Any, dist).PrefixStore(meeting, store), meeting


def _connected(*, host: bool) -> Any:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return cast(Any, dist).TCPStore(address, port, is_master=host, timeout=PATIENCE, wait_for_workers=False)
