"""Linear probe: logistic regression on frozen features, by L-BFGS."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.source import Part
from vitlab.errors import DataError
from vitlab.evals.features import Labelled
from vitlab.evals.fewshot import BIAS, LinearHead, moments

STRENGTHS = tuple(10.0**power for power in range(0, -7, -1))
"""The regularisers tried, from strong to weak: each fit starts where the one before ended."""
HELD_OUT = 0.2
"""The share of every class of the training images on which the regulariser is chosen."""
_ROWS = 8192  # at a time, so that memory does not grow with the examples
_ITERATIONS = 200


@dataclass(frozen=True)
class Probed:
    """The accuracy on the test images, the regulariser, and what each that was tried got right of the images held out."""

    accuracy: float
    l2: float
    held_out: dict[float, float]


def probe(
    train: Labelled, test: Labelled, num_classes: int, strengths: Sequence[float] = STRENGTHS, seed: int = 0
) -> Probed:
    """Return the accuracy on `test` of logistic regression on `train`, regularised as is best for a fifth of it that is held out.

    Of equal strengths the first is taken, by default the strongest; then all of `train` is fitted.

    Raises:
        DataError: no class has two examples, so that nothing can be held out.
    """
    fitted, held = (train.take(_side(side, seed, train.labels)) for side in ("train", "test"))
    if not len(held):
        raise DataError("probe", "has one image a class: none can be held out", "give more training images")
    shares, head = dict[float, float](), None
    for l2 in strengths:
        head = fit(fitted, num_classes, l2, head)
        shares[l2] = head.accuracy(held.values, held.labels)
    best = max(shares, key=lambda l2: shares[l2])
    return Probed(fit(train, num_classes, best).accuracy(test.values, test.labels), best, shares)


def fit(train: Labelled, num_classes: int, l2: float, start: LinearHead | None = None) -> LinearHead:
    """Return the head that minimises the mean cross-entropy of `train` plus l2 / 2 times the sum of squared weights.

    Features are whitened, and the bias is not regularised. It is found by L-BFGS in float64 from zero, or from `start`.
    """
    mean, std = moments(train.values)
    weights = torch.zeros(len(mean) + 1, num_classes, dtype=torch.float64)
    if start is not None:
        weights = torch.from_numpy(start.weights.copy())
        weights[-1] *= BIAS
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-3 * min(l2, 1e-3),  # far below the pull of a weak regulariser, which decides where the end is
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        loss, weights.grad = _loss(train, weights, l2, (mean, std))
        return loss

    optimizer.step(evaluate)
    weights[-1] /= BIAS  # the constant that a `LinearHead` appends
    return LinearHead(mean, std, weights.numpy())


def _loss(
    train: Labelled, weights: Tensor, l2: float, moments: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[Tensor, Tensor]:
    """Return the regularised loss of `weights` [r + 1, k], the last row of which is the bias, and its gradient."""
    matrix, (mean, std) = weights[:-1], moments
    loss, gradient = 0.5 * l2 * matrix.square().sum(), torch.zeros_like(weights)
    for first in range(0, len(train), _ROWS):
        x = torch.from_numpy((train.values[first : first + _ROWS] - mean) / std)
        own = torch.from_numpy(train.labels[first : first + _ROWS])
        logs = (x @ matrix + weights[-1]).log_softmax(dim=1)
        loss = loss - logs[torch.arange(len(own)), own].sum() / len(train)
        errors = logs.exp_()
        errors[torch.arange(len(own)), own] -= 1
        gradient[:-1] += x.T @ errors / len(train)
        gradient[-1] += errors.sum(dim=0) / len(train)
    gradient[:-1] += l2 * matrix
    return loss, gradient


def _side(side: str, seed: int, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return Part.model_validate({"side": side, "fraction": HELD_OUT, "seed": seed}).indices(labels)
