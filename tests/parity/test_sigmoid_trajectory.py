"""A whole pre-training run on images with several labels, or none, against big_vision: sigmoid, linear decay, attention pooling."""

from dataclasses import replace

import numpy as np
import torch

from tests.parity import test_trajectory
from vitlab.data.labels import NONE
from vitlab.train.config import TrainSettings
from vitlab.train.objective import Sigmoid
from vitlab.train.optimizer import Adam
from vitlab.train.schedule import Linear
from vitlab.weights.load import load


def batches_of(arrays):
    """The golden batches, their labels as rows of class numbers instead of rows of zeros and ones."""
    for batch, present in zip(test_trajectory.batches_of(arrays), arrays["labels"], strict=True):
        rows = np.full(present.shape, NONE, np.int64)
        for row, shown in zip(rows, present, strict=True):
            row[: int(shown.sum())] = np.flatnonzero(shown)
        yield replace(batch, labels=torch.from_numpy(rows))


def test_sigmoid_pre_training_makes_the_updates_of_big_vision(golden, agree, tmp_path):
    """Weight decay there is an absolute value times the schedule; ours is times the learning rate: 0.05 / 0.01."""
    case = golden("optim/adam_wd_linear_sigmoid")
    model, config = load(case.path("params_init_big_vision")), case.config["train"]
    settings = TrainSettings(
        steps=config["total_steps"],
        batch_size=config["batch"],
        lr=config["lr"],
        optimizer=Adam(beta2=config["optax"]["b2"], weight_decay=config["wd"] / config["lr"], decay="kernels"),
        schedule=Linear(warmup_steps=config["schedule"]["warmup_steps"], end=0.0),
        clip_norm=config["grad_clip_norm"],
        objective=Sigmoid(),
    )
    state = test_trajectory.run(case, model, settings, case.arrays("npz"), agree, batches=batches_of)
    arrays = case.arrays("npz")
    final = {name.removeprefix("params_final:"): arrays[name] for name in arrays if name.startswith("params_final:")}
    np.savez(tmp_path / "final.npz", **final)
    wanted = dict(load(tmp_path / "final.npz").named_parameters())
    for name, parameter in state.model.named_parameters():
        if not name.endswith("key.bias"):  # its gradient is rounding noise, which Adam scales up to full size
            agree(f"{case.name} params_final", parameter, wanted[name], **case.tolerance["params"])
