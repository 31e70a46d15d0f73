"""Nothing in a step waits for the device: no number is read, no shape depends on one, and nothing is copied from host memory."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vitlab.models.classifier import build
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Sigmoid, Softmax
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

from .conftest import SHAPE

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique2", "equal", "is_nonzero",  # a number or a shape is read
    "lift_fresh",  # torch.tensor(…), which copies to a device at once
}  # fmt: skip


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        by_mask = name.startswith("index") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if isinstance(args[1], list) else ())
        )
        if name in WAITS or by_mask:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def test_what_waits_is_counted():
    """So the tests below can fail."""
    x = torch.ones(3)
    with Counting() as counting:
        x[x > 0], x.sum().item(), torch.tensor([1.0]), float(x[0])
    assert counting.found == {"_local_scalar_dense": 2, "lift_fresh": 1, "index": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": SGD()},
        {"optimizer": Adam(moment_dtype="bfloat16"), "average": 0.9, "clip_norm": None},
        {"optimizer": Adam(), "average": 0.9, "layer_decay": 0.5, "precision": "bfloat16", "micro_batch_size": 4},
        {"optimizer": SGD(moment_dtype="bfloat16"), "exact": True, "micro_batch_size": 2},
        {"objective": Softmax(label_smoothing=0.1), "frozen": "trunk"},
        {"objective": Sigmoid(label_smoothing=0.1)},
        {"objective": MaskedPatches(), "optimizer": Adam()},
        {"objective": MaskedPatches(target="pixels"), "optimizer": Adam()},
    ],
    ids=str,
)
def test_a_step_waits_for_nothing(make_training, make_batch, changes):
    """Mixing is left out: it draws its share on the host, and reads it there."""
    settings = make_training(**changes)
    masked = isinstance(settings.objective, MaskedPatches)
    shape = SHAPE.model_copy(
        update={"dropout": 0.1, "stochastic_depth": 0.1} | ({"num_classes": None} if masked else {})
    )
    state = TrainState.start(build(shape, seed=1), settings)
    train_step(state, make_batch(0).pieces(settings.pieces), settings).read(state)
    pieces = list(make_batch(1).pieces(settings.pieces))
    with Counting() as counting:
        update = train_step(state, pieces, settings)
    assert counting.found == {}
    assert update.read(state).loss > 0
