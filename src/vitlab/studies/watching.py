"""Who follows a run: whoever started it, the meter, and the programs that it was asked to report to."""

import torch

from vitlab.config import to_json
from vitlab.studies.recipe import RunSettings
from vitlab.train.meter import TIMING, Meter, Pace, TimingFile, matrix_rate, training_flops
from vitlab.train.precision import dtype_of
from vitlab.train.run import RunFolder
from vitlab.train.tracking import TensorBoard, WeightsAndBiases, check_installed
from vitlab.train.watcher import Several, Watcher


def check_watchers(settings: RunSettings) -> None:
    """Check that what the settings name to report to is installed.

    Raises:
        SettingsError: it is not.
    """
    check_installed(tensorboard=settings.tensorboard, wandb=settings.wandb is not None)


def watchers(settings: RunSettings, run: RunFolder, step: int, watcher: Watcher) -> Watcher:
    """Return everybody who follows `run` from `step` on: `watcher`, those that the settings name, and the meter.

    Of several ranks the first one speaks for all. Their devices are taken to be alike: one is measured.

    Raises:
        SettingsError: a program that the settings name does not start.
    """
    if not run.ranks.first:
        return watcher
    told = [watcher]
    if settings.tensorboard:
        told.append(TensorBoard(run.path, step))
    if settings.wandb is not None:
        told.append(WeightsAndBiases(run.path, settings.wandb, to_json(settings)))
    device = torch.device(settings.device)
    rate = run.ranks.world * matrix_rate(device, dtype_of(settings.train.precision))
    pace = Pace(training_flops(settings.model), rate, device)
    return Several(*told, Meter(pace, TimingFile(run.path / TIMING), *told))
