"""How much each class counts in the loss, where some have many images and others few."""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from vitlab.config import Settings, nearest
from vitlab.errors import SettingsError

Weights = NDArray[np.float64]
SHOWN = 12
"""So many classes are printed one by one."""


class Equal(Settings):
    """Every class has the weight 1 (the paper)."""

    type: Literal["Equal"] = "Equal"


class Balanced(Settings):
    """A class weighs in inverse proportion to its images: N / (k · count), N being the labels of all training images together.

    k counts the classes that have images, so that the mean weight of a training label is 1. A class without any weighs 1.
    """

    type: Literal["Balanced"] = "Balanced"


class PerClass(Settings):
    """The weights given by class name; a class that is not named weighs 1."""

    type: Literal["PerClass"] = "PerClass"
    weights: Annotated[Mapping[str, PositiveFloat], Field(min_length=1)]


ClassWeights = Equal | Balanced | PerClass


def weigh(kind: ClassWeights, classes: tuple[str, ...], counts: NDArray[np.int64]) -> Weights | None:
    """Return the weight of every class: float64 [k], None where all are equal. `counts` [k] are the training images of each.

    Raises:
        SettingsError: a weight is for a class that the data do not have.
    """
    match kind:
        case Equal():
            return None
        case Balanced():
            return np.where(counts > 0, counts.sum() / (max(1, np.count_nonzero(counts)) * np.maximum(counts, 1)), 1.0)
        case PerClass():
            unknown = [name for name in kind.weights if name not in classes]
            if unknown:
                what = f"train.objective.class_weights: the data have no class '{unknown[0]}'"
                raise SettingsError("--set", what, nearest(unknown[0], classes[:20]))
            return np.array([kind.weights.get(name, 1.0) for name in classes])


def describe(weights: Mapping[str, float]) -> str:
    """Return weights in a line: every one of a few, the lowest and the highest of many."""
    if len(weights) <= SHOWN:
        return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
    (lightest, low), *_, (heaviest, high) = sorted(weights.items(), key=lambda item: item[1])
    return f"{len(weights):,} classes, from {low:.3g} ({lightest}) to {high:.3g} ({heaviest})"
