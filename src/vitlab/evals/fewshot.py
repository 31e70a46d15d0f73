"""Linear few-shot evaluation in closed form (section 4.1): regularised least squares from frozen features to {-1, 1}."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab.data.labels import is_multi_label, renumber
from vitlab.data.source import Source, Subset, class_indices
from vitlab.errors import DataError, SettingsError
from vitlab.evals.features import extract
from vitlab.models.classifier import Classifier

BIAS = 100.0
"""The constant feature appended to every example: so large that the regulariser hardly touches its weight."""
L2 = 2.0**10
"""The regulariser of the authors' later code; the paper swept it."""
SWEEP = tuple(2.0**power for power in range(-10, 20))
"""The regularisers that their earlier code tried, to take one for each number of shots (`best_by_rank`)."""
_ROWS = 512  # at a time, so that memory does not grow with the examples
_PART = 4096  # of which a product is made

Floats = NDArray[np.float64]


def choose(labels: NDArray[np.int64], shots: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of `shots` random examples of every class, class by class; fewer where a class has fewer.

    Those of fewer shots are among those of more.
    """
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:shots] for label in range(int(labels.max()) + 1)]
    return np.concatenate(chosen)


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier on whitened features with a constant appended: `mean`, `std` [r], `weights` [r + 1, k]."""

    mean: Floats
    std: Floats
    weights: Floats

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Return the regressed targets of `features` [n, r]: [n, k]."""
        return _whiten(features, self.mean, self.std) @ self.weights

    def accuracy(self, features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
        """Return the share of examples whose highest score is their own class."""
        starts = range(0, len(labels), _ROWS)
        found = (self.scores(features[start : start + _ROWS]).argmax(axis=1) for start in starts)
        return float((np.concatenate(list(found)) == labels).mean())


def solve(features: NDArray[np.floating], labels: NDArray[np.int64], num_classes: int, l2: float = L2) -> LinearHead:
    """Return the head that regresses whitened `features` [n, r] onto targets of +1 for the own class and -1 for the others.

    The system is solved in float64 by Cholesky, in whichever of its two forms is smaller.

    Raises:
        DataError: a feature is not finite.
        SettingsError: `l2` is not above zero, or so small that the system has no solution in float64.
    """
    check_l2s([l2])
    system = System.of(features, labels, num_classes)
    factor, failed = torch.linalg.cholesky_ex(system.gram + l2 * torch.eye(len(system.gram), dtype=torch.float64))
    if failed:
        raise SettingsError("l2", f"{l2:g} is too small for these features", "give a larger one")
    return system.head(torch.cholesky_solve(system.right, factor))


def sweep(
    features: NDArray[np.floating], labels: NDArray[np.int64], num_classes: int, l2s: Sequence[float] = SWEEP
) -> Iterator[LinearHead]:
    """Yield what `solve` returns for each of `l2s`, from one decomposition: G = V Λ Vᵀ gives (G + l2)⁻¹ = V (Λ + l2)⁻¹ Vᵀ.

    Raises:
        DataError: a feature is not finite.
        SettingsError: a value of `l2s` is not above zero.
    """
    check_l2s(l2s)
    system = System.of(features, labels, num_classes)
    values, vectors = np.linalg.eigh(system.gram.numpy())
    values, rotated = values.clip(min=0), vectors.T @ system.right.numpy()  # below zero by rounding alone
    left = vectors if system.x is None else system.x.numpy().T @ vectors
    for l2 in l2s:
        yield LinearHead(system.mean, system.std, (left / (values + l2)) @ rotated)


@dataclass(frozen=True)
class System:
    """The normal equations: (`gram` + l2) s = `right`; the weights are s, or in the dual form, which has an `x`, xᵀs."""

    mean: Floats
    std: Floats
    gram: torch.Tensor
    right: torch.Tensor
    x: torch.Tensor | None = None

    @classmethod
    def of(cls, features: NDArray[np.floating], labels: NDArray[np.int64], num_classes: int) -> "System":
        """Return the smaller of the two systems for whitened `features` and targets of ±1."""
        mean, std = moments(features)
        own = torch.from_numpy(labels)
        if len(features) <= len(mean):
            x = _whiten(features, mean, std)
            targets = torch.full((len(x), num_classes), -1.0, dtype=torch.float64)
            targets[torch.arange(len(x)), own] = 1.0
            return cls(mean, std, torch.from_numpy(x @ x.T), targets, torch.from_numpy(x))
        # y = 2 one-hot - 1, so that xᵀy is sums of rows: no product with a dense matrix of zeros and ones. In parts, so that
        # what is whitened is never in memory as a whole.
        gram, sums = np.zeros((len(mean) + 1,) * 2), torch.zeros(num_classes, len(mean) + 1, dtype=torch.float64)
        memory = np.empty((min(_PART, len(features)), len(mean) + 1))
        for start in range(0, len(features), _PART):
            rows = features[start : start + _PART]
            x = _whiten(rows, mean, std, memory[: len(rows)])
            gram += x.T @ x  # numpy computes one half of it
            sums.index_add_(0, own[start : start + _PART], torch.from_numpy(x))
        return cls(mean, std, torch.from_numpy(gram), 2 * sums.T - sums.sum(dim=0)[:, None])

    def head(self, solution: torch.Tensor) -> LinearHead:
        """Return the head of a solution of the system."""
        weights = solution if self.x is None else self.x.T @ solution
        return LinearHead(self.mean, self.std, weights.numpy())


def check_l2s(l2s: Sequence[float]) -> None:
    """Refuse regularisers that are not above zero: without one the system may have no solution.

    Raises:
        SettingsError: one is not.
    """
    for l2 in l2s:
        if not 0 < l2 < float("inf"):
            raise SettingsError("l2", f"{l2:g} is no regulariser", "give a number above zero, as 1024")


def moments(features: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return the mean of every feature [r], and its deviation with what keeps a constant one from dividing by zero.

    Raises:
        DataError: a feature is not finite; the first example that has one is named by its number.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        what = f"of {len(bad):,} examples are not finite, the first is number {bad[0]}" if len(bad) else "overflow"
        raise DataError("features", what, "check the weights that they are from")
    squares, part = np.zeros_like(mean), np.empty((_ROWS, len(mean)))
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS]
        np.subtract(rows, mean, out=part[: len(rows)])  # into the same memory: new pages took most of the time
        squares += np.einsum("ij,ij->j", part[: len(rows)], part[: len(rows)])
    return mean, np.sqrt(squares / len(features)) + 1e-5


def _whiten(features: NDArray[np.floating], mean: Floats, std: Floats, out: Floats | None = None) -> Floats:
    """Return features [n, r] with mean 0 and deviation 1, and the constant: [n, r + 1], in `out` if that is given."""
    x = np.empty((len(features), len(mean) + 1)) if out is None else out
    x[:, -1] = BIAS
    for start in range(0, len(features), _ROWS):  # while they are in the processor's cache
        part = x[start : start + _ROWS, :-1]
        np.subtract(features[start : start + _ROWS], mean, out=part)
        part /= std
    return x


def best_by_rank(accuracies: Sequence[Sequence[float]]) -> int:
    """Return which column of `accuracies` [data sets, l2s] ranks best on average; equal ones share a rank, the first wins.

    It is how the authors' earlier code takes one l2 for each number of shots, by what the heads get right on the test images.
    """
    table = np.array(accuracies)[:, :, None]
    ranks = (table > table.swapaxes(1, 2)).sum(axis=2) + 0.5 * (table == table.swapaxes(1, 2)).sum(axis=2)
    return int(ranks.mean(axis=0).argmax())


def matched_labels(train: Source, test: Source) -> NDArray[np.int64]:
    """Return the labels of `test` as places in the classes of `train`, by name.

    Raises:
        DataError: one of them has several labels an image or no image, or `test` has a class that `train` has not.
    """
    for source in (train, test):
        if is_multi_label(source.labels):
            what, remedy = "may have several labels an image", "few-shot evaluation needs one: use finetune"
            raise DataError(str(source), what, remedy)
        if not len(source):
            raise DataError(str(source), "has no images", "give more, or name others")
    unknown = [f"'{name}'" for name in test.classes if name not in train.classes]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        what = f"has other classes than {train}: {', '.join(unknown[:5])}{more}"
        raise DataError(str(test), what, "give two splits of one data set")
    return renumber(test.labels, class_indices(test.classes, train.classes, str(test)))


def check_shots(train: Source, shots: int) -> None:
    """Refuse `shots` examples of every class of `train` where there are not so many.

    Raises:
        DataError: a class has fewer; it is named.
    """
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if counts.min() < shots:
        name = train.classes[int(counts.argmin())]
        what = f"class '{name}' has {counts.min()} examples, fewer than {shots} shots"
        raise DataError(
            str(train), what, f"use at most {counts.min()} shots" if counts.min() else "leave that class out"
        )


def fewshot(model: Classifier, train: Source, test: Source, shots: int = 5, seed: int = 0, l2: float = L2) -> float:
    """Return the accuracy on `test` of a linear head fitted to `shots` examples of every class of `train`.

    Raises:
        DataError: `test` has a class that `train` has not, several labels an image, or a class fewer examples than `shots`.
    """
    labels = matched_labels(train, test)
    check_shots(train, shots)
    support = Subset(train, choose(train.labels, shots, seed))
    head = solve(extract(model, support), support.labels, len(train.classes), l2)
    return head.accuracy(extract(model, test), labels)
