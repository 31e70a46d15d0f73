"""Linear few-shot evaluation in closed form (section 4.1): regularised least squares from frozen features to {-1, 1}."""

import numpy as np
from numpy.typing import NDArray

from vitlab.data.labels import is_multi_label
from vitlab.data.source import Source, Subset
from vitlab.errors import DataError
from vitlab.evals.features import extract
from vitlab.models.classifier import Classifier

BIAS = 100.0
"""The constant feature appended to every example: so large that the regulariser hardly touches its weight."""
L2 = 2.0**10
"""The regulariser of the authors' later code; the paper swept it."""


def choose(labels: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of `shots` random examples of every class, class by class; fewer where a class has fewer."""
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:shots] for label in range(int(labels.max()) + 1)]
    return np.concatenate(chosen)


def solve(features: NDArray[np.floating], labels: NDArray[np.int64], num_classes: int, l2: float = L2) -> "LinearHead":
    """Return the head that regresses whitened `features` [n, r] onto targets of +1 for the own class and -1 for the others.

    The system is solved in float64, in whichever of its two forms is smaller.
    """
    x = features.astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-5
    x = _whiten(x, mean, std)
    targets = np.full((len(labels), num_classes), -1.0)
    targets[np.arange(len(labels)), labels] = 1.0
    if len(x) < x.shape[1]:
        weights = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), targets)
    else:
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets)
    return LinearHead(mean, std, np.asarray(weights, np.float64))


class LinearHead:
    """A linear classifier on whitened features with a constant appended: `weights` is [r + 1, k]."""

    def __init__(self, mean: NDArray[np.float64], std: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        self.mean, self.std, self.weights = mean, std, weights

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the regressed targets of `features` [n, r]: [n, k]."""
        return _whiten(features.astype(np.float64), self.mean, self.std) @ self.weights

    def accuracy(self, features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
        """Return the share of examples whose highest score is their own class."""
        return float((self.scores(features).argmax(axis=1) == labels).mean())


def fewshot(model: Classifier, train: Source, test: Source, shots: int = 5, seed: int = 0, l2: float = L2) -> float:
    """Return the accuracy on `test` of a linear head fitted to `shots` examples of every class of `train`.

    Raises:
        DataError: the sources have different classes, several labels an image, or a class fewer examples than `shots`.
    """
    for source in (train, test):
        if is_multi_label(source.labels):
            raise DataError(
                str(source), "may have several labels an image", "few-shot evaluation needs one: use finetune"
            )
    if train.classes != test.classes:
        raise DataError(str(test), f"has other classes than {train}", "give two splits of one data set")
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if counts.min() < shots:
        name = train.classes[int(counts.argmin())]
        raise DataError(
            str(train), f"class '{name}' has {counts.min()} examples, fewer than {shots} shots", "use fewer shots"
        )
    chosen = choose(train.labels, shots, seed)
    support = Subset(train, chosen)
    head = solve(extract(model, support), support.labels, len(train.classes), l2)
    return head.accuracy(extract(model, test), test.labels)


def _whiten(x: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([(x - mean) / std, np.full((len(x), 1), BIAS)])
