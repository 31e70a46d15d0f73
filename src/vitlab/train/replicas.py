"""Replicas: how the ranks share a model while they train it, each with all of it or each with a part of every tensor."""

from collections.abc import Generator
from contextlib import contextmanager

from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitlab.errors import SettingsError
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.models.vit import ViT, ViTSettings
from vitlab.ranks import Ranks
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches, MaskedTask
from vitlab.train.objective import Task
from vitlab.train.sharding import gather_gradients, shard


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
    `fully_shard`, block by block). In bfloat16 a block then travels in 16 bits: the matrices are those that autocast would
    make, gains, biases and positions are rounded too; gradients are added in float32. An exact run brings its gradients together
    itself.

    Raises:
        SettingsError: the task cannot be sharded.
    """
    check_shardable(settings, learner.model.settings)
    if settings.parallel == "sharded":
        if ranks.world > 1:
            shard(learner.model, half=settings.precision == "bfloat16")
        return learner
    if ranks.world == 1 or settings.exact:
        return learner
    return DistributedDataParallel(learner, find_unused_parameters=has_unused(learner), gradient_as_bucket_view=True)


def has_unused(learner: Learner) -> bool:
    """Return whether parameters get no gradient: those of what only a head reads, where patches are predicted instead."""
    if not (isinstance(learner.task, MaskedTask) and isinstance(learner.model, ViT)):
        return False
    parts = [part for part in (learner.model.pooling, learner.model.representation) if part is not None]
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def check_shardable(train: TrainSettings, model: AnySettings) -> None:
    """Refuse to share in parts what more than one block, or more than the model itself, has to gather.

    Raises:
        SettingsError: the settings ask for that.
    """
    shared = isinstance(model, ViTSettings) and model.position.place == "shared"
    masked = isinstance(train.objective, MaskedPatches)
    if train.parallel == "sharded" and (shared or masked):
        what = f"'sharded' is not there for {'positions that all blocks share' if shared else 'MaskedPatches'}"
        raise SettingsError("train.parallel", what, "leave it at 'data': each rank then has the whole model")


@contextmanager
def last_piece(learner: nn.Module, *, last: bool) -> Generator[None]:
    """Bring the gradients of the ranks together in the backward passes inside, or with `last` False keep what each has."""
    if isinstance(learner, DistributedDataParallel) and not last:
        with learner.no_sync():
            yield
        return
    gather_gradients(learner, now=last)
    yield
