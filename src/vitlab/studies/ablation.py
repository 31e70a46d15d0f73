"""Ablation: variants of one pre-training, each judged by linear heads on its frozen features, as in appendix D."""

from vitlab.cost.flops import exaflops_of
from vitlab.studies.transfer import macs_of
from vitlab.studies.work import Training
from vitlab.studies.world import World

TASKS = {"miniature": "new fractals"}
"""What ablations are judged by where it is not the world's task: digits are so unlike what the miniature is pre-trained on that
linear heads on them tell its seeds apart rather than its variants."""


def task_of(world: World) -> str:
    """Return the task by which variants are compared."""
    return TASKS.get(world.scale, world.task)


def exaflops(training: Training) -> float:
    """Return what a training computes, as the paper counts it."""
    settings = training.settings
    found = exaflops_of(macs_of(settings.model), settings.train.batch_size * settings.train.steps, 1)
    assert found is not None  # the images were given
    return found
