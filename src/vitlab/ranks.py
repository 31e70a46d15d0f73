"""Ranks: the processes that work on one model together, and what they tell each other."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=10)
"""How long a collective waits; a rank that is dead or hangs is noticed, and named, long before (see `vitlab.train.heartbeat`)."""
_SETUP = timedelta(days=1)  # rank 0 may look through a large data set first


@dataclass(frozen=True)
class Ranks:
    """One of `world` processes: its `rank` among all, and its number on this machine, which is that of its GPU."""

    rank: int = 0
    world: int = 1
    local: int = 0
    _told: Any = field(default_factory=count, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the rank that speaks and writes."""
        return self.rank == 0

    def share(self, of: int) -> range:
        """Return which of `of` pieces, a multiple of `world`, are this rank's: its part in one run."""
        each = of // self.world
        return range(self.rank * each, (self.rank + 1) * each)

    def tell(self, value: Any = None) -> Any:
        """Return on every rank what the first gives: plain JSON values. The others wait for it, however long that takes."""
        if self.world == 1:
            return value
        key, store = f"vitlab/{next(self._told)}", _store()
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
        store, key = _store(), f"vitlab/{next(self._told)}"
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
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(int(os.environ["RANK"]), world, local)
    finally:
        dist.destroy_process_group()


def _store() -> Any:
    return cast(Any, dist.distributed_c10d)._get_default_store()
