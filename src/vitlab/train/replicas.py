"""Replicas: how the ranks share a model while they train it, each with all of it or each with a part of every tensor."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from vitlab.errors import SettingsError
from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViTSettings
from vitlab.nn.axial import AxialBlock
from vitlab.nn.axial_resnet import AxialUnit
from vitlab.nn.encoder import Block
from vitlab.nn.resnet import PostActivationUnit, PreActivationUnit
from vitlab.ranks import Ranks
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedTask
from vitlab.train.objective import Task
from vitlab.train.optimizer import SGD


class Learner(nn.Module):
    """A model and its task as one module, from images and labels to losses."""

    def __init__(self, model: Classifier, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, images: UInt8[Tensor, "b c h w"], labels: Int64[Tensor, "b *m"]) -> Float[Tensor, " b"]:
        """Return the loss of every image."""
        return self.task(self.model, images, labels)


def replicate(learner: Learner, settings: TrainSettings, ranks: Ranks) -> nn.Module:
    """Return `learner` so that the gradients of all ranks come together, as their mean, in the backward pass of `last_piece`.

    With `parallel="sharded"` every rank keeps a part of each parameter and gathers a block's when it computes it (FSDP2's
    `fully_shard`, block by block). An exact run brings its gradients together itself.

    Raises:
        SettingsError: the task cannot be sharded.
    """
    if settings.parallel == "sharded":
        _check_shardable(learner, settings)
        if ranks.world > 1:
            _shard(learner.model)
        return learner
    if ranks.world == 1 or settings.exact:
        return learner
    unused = isinstance(learner.task, MaskedTask)  # what only the head reads gets no gradient
    return DistributedDataParallel(learner, find_unused_parameters=unused, gradient_as_bucket_view=True)


def _check_shardable(learner: Learner, training: TrainSettings) -> None:
    """Refuse what more than one block, or more than the model itself, has to gather, and what torch cannot do to parts."""
    settings = learner.model.settings
    shared = isinstance(settings, ViTSettings) and settings.position.place == "shared"
    if isinstance(training.optimizer, SGD):
        what = "'sharded' is not there for SGD, whose fused form in torch knows no tensors in parts"
        raise SettingsError("train.parallel", what, "use --set train.optimizer=Adam, or leave it at 'data'")
    if shared or isinstance(learner.task, MaskedTask):
        what = f"'sharded' is not there for {'positions that all blocks share' if shared else 'MaskedPatches'}"
        raise SettingsError("train.parallel", what, "leave it at 'data': each rank then has the whole model")


def _shard(model: Classifier) -> None:
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in blocks(model):
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


_BLOCKS = (Block, AxialBlock, PreActivationUnit, PostActivationUnit, AxialUnit)


def blocks(model: Classifier) -> list[nn.Module]:
    """Return the parts that a model is a stack of: a ViT's blocks, and the units of a ResNet."""
    return [module for module in model.modules() if isinstance(module, _BLOCKS)]


@contextmanager
def last_piece(learner: nn.Module, *, last: bool) -> Generator[None]:
    """Bring the gradients of the ranks together in the backward passes inside, or with `last` False keep what each has."""
    if isinstance(learner, DistributedDataParallel) and not last:
        with learner.no_sync():
            yield
        return
    for module in learner.modules():
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
    yield


def whole(tensor: Tensor) -> Tensor:
    """Return a copy of all of `tensor` in the memory of this process; every rank has to ask where it is sharded."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().to("cpu", copy=True).contiguous()


def as_stored(values: Tensor, like: Tensor) -> Tensor:
    """Return a copy of whole `values` where and as `like` is kept: on its device, and of a sharded tensor this rank's part."""
    values = values.to(like.device, copy=True)
    if not isinstance(like, DTensor):
        return values
    return cast(Any, distribute_tensor)(values, like.device_mesh, like.placements, src_data_rank=None)
