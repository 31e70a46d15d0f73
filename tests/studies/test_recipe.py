import math

import pytest
import torch

from vitlab.models.catalog import settings_for
from vitlab.studies.recipe import (
    MEMORY_BYTES,
    PRETRAIN,
    SCRATCH,
    TRANSFER,
    micro_batch_for,
    pretraining,
    scratch,
    steps_for,
    transfer,
)
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Cosine, Linear


def test_transfer_is_the_papers_fine_tuning():
    """Table 4 and appendix B.1.1: SGD with momentum 0.9, batch 512, no weight decay, cosine, gradient norm clipped at 1."""
    train = transfer(500)
    assert train.optimizer == SGD(momentum=0.9) and train.optimizer.weight_decay == 0
    assert (train.batch_size, train.lr, train.clip_norm, train.steps) == (512, 0.003, 1.0, 500)
    assert isinstance(train.schedule, Cosine) and train.schedule.warmup_steps == 50
    assert transfer(20_000).schedule.warmup_steps == 500


def test_pretraining_has_the_papers_shape():
    """Table 3 and section 4.1: Adam 0.9 0.999, decay 0.1, linear to 1e-5 after a warm-up of 10,000 steps."""
    train = pretraining(1_000_000)
    assert train.optimizer == Adam(beta1=0.9, beta2=0.999, weight_decay=0.1)
    assert train.schedule == Linear(warmup_steps=10_000, end=1e-5)


@pytest.mark.parametrize("training", [transfer, scratch, pretraining])
@pytest.mark.parametrize("steps", [1, 7, 500])
def test_a_warm_up_is_never_longer_than_a_tenth_of_the_run(training, steps):
    train = training(steps)
    assert train.steps == steps and train.schedule.warmup_steps <= steps / 10


def test_recipes_make_the_steps_they_are_named_for():
    for recipe in (TRANSFER, SCRATCH, PRETRAIN):
        assert recipe.training(recipe.steps).steps == recipe.steps


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 5), (0.1, 1), (0.0001, 1), (4, 10)])
def test_epochs_round_up_to_whole_steps(make_source, epochs, steps):
    assert steps_for(epochs, make_source(count=10), 4) == steps == max(1, math.ceil(epochs * 10 / 4))


@pytest.mark.parametrize("name", ["Mini/4", "S/16", "B/16", "H/14"])
@pytest.mark.parametrize("batch_size", [1, 64, 512, 4096, 509])
def test_a_micro_batch_divides_the_batch_and_is_the_largest_that_fits(name, batch_size):
    model = settings_for(name, 10, 224)
    micro = micro_batch_for(model, batch_size)
    if micro is None:
        assert estimate(model, batch_size) <= MEMORY_BYTES
        return
    assert batch_size % micro == 0 and (micro == 1 or estimate(model, micro) <= MEMORY_BYTES)
    larger = [size for size in range(micro + 1, batch_size + 1) if batch_size % size == 0]
    assert all(estimate(model, size) > MEMORY_BYTES for size in larger)


def estimate(model, size):
    """Bytes of activations that the backward pass reads: tokens × layers × what a block keeps, in float32."""
    return 4 * size * (model.grid.cells + 1) * model.depth * (12 * model.width + 2 * model.mlp_dim)


def test_the_estimate_of_activations_is_of_the_right_size():
    """Measured with what autograd saves; within a factor of two, on the safe side more often than not."""
    from vitlab.models.catalog import build_named

    model = build_named("Mini/4", num_classes=10, image_size=32)
    saved = 0
    held = {parameter.data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        nonlocal saved
        if tensor.data_ptr() not in held:
            held.add(tensor.data_ptr())
            saved += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.zeros(4, 3, 32, 32)).sum()
    assert 0.5 <= saved / estimate(model.settings, 4) <= 2
