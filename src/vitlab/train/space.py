"""Space: whether the disk has room for the checkpoints of a run, before weeks of training find out."""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from vitlab.errors import RunFolderError
from vitlab.models.classifier import Classifier
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import OptimizerSettings, build_optimizer

_STATES = 2
"""One checkpoint stays while the next one is written."""


def checkpoint_bytes(model: Classifier, settings: TrainSettings) -> int:
    """Return about how large a checkpoint of `model` will be: its parameters, what the optimizer keeps for each, and the average
    and the best weights where there are such."""
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    copies = 1 + (settings.average is not None) + (settings.patience is not None)
    return round(parameters * (copies + _kept(settings.optimizer)))


def _kept(settings: OptimizerSettings) -> float:
    """Return how many bytes the optimizer keeps for a byte of a parameter: what one update of a small one leaves."""
    probe = nn.Parameter(torch.zeros(32, 32))
    probe.grad = torch.zeros_like(probe)
    optimizer = build_optimizer(settings, [("probe", probe)])
    optimizer.step()
    return sum(value.nbytes for value in optimizer.state[probe].values() if isinstance(value, Tensor)) / probe.nbytes


def check_space(folder: Path, size: int) -> None:
    """Check that the disk of `folder`, which need not exist yet, has room for the checkpoints of `size` bytes of a new run.

    Raises:
        RunFolderError: it has not.
    """
    if (lack := lacking(folder, size)) is not None:
        raise RunFolderError(folder, lack, "make room, or choose another --out")


def lacking(folder: Path, size: int) -> str | None:
    """Return what is wrong with the room for checkpoints of `size` bytes, None where they fit."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    disk = shutil.disk_usage(there)
    if not disk.total or disk.free >= _STATES * size:  # some network drives do not say
        return None
    need = f"two checkpoints of {size / 1e6:,.0f} MB do not fit"
    return f"its disk has {disk.free / 1e6:,.0f} MB left, where {need}"
