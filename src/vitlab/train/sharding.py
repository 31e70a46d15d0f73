"""Sharding: every rank keeps a part of each parameter and gathers a block's when it computes it (FSDP2).

What torch has for it takes a second to load, so only `shard` loads it; the others know its tensors and modules by what they can do.
"""

from collections.abc import Container, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitlab.models.classifier import Classifier
from vitlab.nn.axial import AxialBlock
from vitlab.nn.encoder import Block
from vitlab.nn.remat import stacks


def shard(model: Classifier, *, half: bool) -> None:
    """Leave each rank its part of every parameter; with `half` a Transformer block is gathered and computed in bfloat16."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    plain = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    # what goes into a block stays float32, for the sum of all blocks does
    in_half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for stack in stacks(model):
        for layer in stack:
            # a ResNet's convolutions standardise their kernels, which takes float32
            fully_shard(layer, mp_policy=in_half if half and isinstance(layer, Block | AxialBlock) else plain)
    fully_shard(model, mp_policy=plain)


def is_part(tensor: Tensor) -> bool:
    """Return whether `tensor` is one rank's part of a sharded one (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: Tensor) -> Tensor:
    """Return what this rank has of a sharded tensor, in the same memory; any other tensor is its own."""
    return cast(Any, tensor).to_local() if is_part(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a sharded tensor, on every rank, which is a collective; any other tensor is whole."""
    return cast(Any, tensor).full_tensor() if is_part(tensor) else tensor


def gathered(tensors: Mapping[str, Tensor], mine: Container[str] | None = None) -> dict[str, Tensor]:
    """Return copies in the memory of this process of all of each of `tensors`, or of those whose names are `mine`.

    A collective where they are sharded: one tensor at a time comes together on every rank.
    """
    copies: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if mine is None or name in mine:
            copies[name] = full.detach().to("cpu", copy=True).contiguous()
    return copies


def as_stored(values: Tensor, like: Tensor) -> Tensor:
    """Return a copy of whole `values` where and as `like` is kept: on its device, and of a sharded tensor this rank's part."""
    values = values.to(like.device, copy=True)
    if not is_part(like):
        return values
    from torch.distributed import tensor as sharded

    how: Any = like
    return cast(Any, sharded).distribute_tensor(values, how.device_mesh, how.placements, src_data_rank=None)


def gather_gradients(learner: nn.Module, *, now: bool) -> None:
    """Bring the gradients of the ranks together in the next backward pass, or keep what each has."""
    for module in _sharded_modules(learner):
        module.set_requires_gradient_sync(now)


def reshard(learner: nn.Module) -> None:
    """Leave each rank its part of every parameter again: a forward pass without a backward pass leaves some of them whole."""
    for module in _sharded_modules(learner):
        module.reshard()


def _sharded_modules(learner: nn.Module) -> Iterator[Any]:
    """Yield the modules that gather their parameters (FSDPModule)."""
    # the class is asked: a module without such a name would look among its parameters, for every piece of every step
    return (module for module in learner.modules() if hasattr(type(module), "set_requires_gradient_sync"))
