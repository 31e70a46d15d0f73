"""A model, settings and batches that train in milliseconds."""

import numpy as np
import pytest
import torch

from vitlab.data.batch import collate
from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import SGD
from vitlab.train.schedule import Cosine
from vitlab.train.state import TrainState

CLASSES = ("cat", "dog", "owl")
SHAPE = ViTSettings(
    image_size=(16, 16), stem=Patches(patch_size=(8, 8)), width=16, depth=2, num_heads=2, mlp_dim=32, num_classes=3
)


@pytest.fixture
def make_training():
    def make(**changes):
        plain = {"steps": 20, "batch_size": 8, "lr": 0.1, "optimizer": SGD(), "schedule": Cosine(), "log_every": 1}
        return TrainSettings(**(plain | changes))

    return make


@pytest.fixture
def make_state(make_training):
    def make(settings=None, dropout=0.0):
        model = build(SHAPE.model_copy(update={"dropout": dropout}), seed=1, classes=CLASSES)
        torch.manual_seed(7)
        torch.nn.init.normal_(model.head.weight, std=0.5)  # a fresh head is zero and hides the layers below it
        return TrainState.start(model, settings or make_training())

    return make


@pytest.fixture
def make_batch():
    def make(step=0, size=8):
        rng = np.random.default_rng(step)
        images = [rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(size)]
        return collate(images, rng.integers(0, 3, size).tolist(), [f"cat/{step}-{i}.png" for i in range(size)], size)

    return make


@pytest.fixture
def snapshot():
    """Return the bits of everything that a state holds."""

    def take(state):
        parameters = {name: parameter.detach().clone() for name, parameter in state.model.named_parameters()}
        kept = {name: tensor.clone() for name, tensor in state.optimizer_tensors().items()}
        return {"step": torch.tensor(state.step), **parameters, **kept}

    return take


@pytest.fixture
def same():
    def compare(old, new):
        return old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)

    return compare
