"""Ablation: variants of one pre-training, each judged by linear heads on its frozen features, as in appendix D."""

from collections.abc import Iterable

from vitlab.cost.flops import cost
from vitlab.evals.interval import OverRuns, over_runs
from vitlab.studies.study import Results
from vitlab.studies.work import Training
from vitlab.studies.world import World

TASKS = {"miniature": "new fractals"}
"""What ablations are judged by where it is not the world's task. Linear heads on digits, which are unlike what the miniature is
pre-trained on, move by 5 points from one seed to the next, more than most of what is compared; on unseen fractals by 1 or 2."""


def task_of(world: World) -> str:
    """Return the task by which variants are compared."""
    return TASKS.get(world.scale, world.task)


def exaflops(training: Training) -> float:
    """Return what a training computes, as the paper counts it."""
    settings = training.settings
    found = cost(settings.model, train_images=settings.train.batch_size * settings.train.steps, epochs=1).exaflops
    assert found is not None  # the images were given
    return found


def over_draws(results: Results, label: str) -> OverRuns | None:
    """Return the mean and deviation of linear heads on one model over the draws of their few images."""
    result = results[label]
    return None if result is None else over_runs(result["draws"])


def typical_deviation(found: Iterable[OverRuns]) -> float:
    """Return the root mean square of deviations, 0 without any: what a difference must exceed to count."""
    squares = [each.std**2 for each in found if each.std is not None]
    return (sum(squares) / len(squares)) ** 0.5 if squares else 0.0


def shown(found: OverRuns | None) -> str:
    """Return a share in percent, with its deviation where there is one; nothing for what was not measured."""
    if found is None:
        return ""
    return f"{100 * found.mean:.1f}" + ("" if found.std is None else f" ± {100 * found.std:.1f}")
