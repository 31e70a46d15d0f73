"""Classification on every example of a source: top-1, top-5, loss, per class, confusion."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from vitlab.data.source import Source, class_indices
from vitlab.errors import DataError
from vitlab.evals.features import map_source
from vitlab.models.classifier import Classifier, head_of


@dataclass(frozen=True)
class Predictions:
    """What a model says of every example: probabilities [n, k], labels [n], and the examples' names, in the source's order."""

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    keys: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of every example."""
        return self.probabilities.argmax(axis=1)

    @property
    def losses(self) -> NDArray[np.float64]:
        """The negative log-probability of every example's own class."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return -np.log(np.maximum(own, np.finfo(np.float32).tiny))

    def top(self, k: int) -> float:
        """Return the share of examples whose class is among the `k` most probable (all classes count when there are fewer)."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        before = np.arange(len(self.classes)) < self.labels[:, None]
        rank = ((self.probabilities > own[:, None]) | ((self.probabilities == own[:, None]) & before)).sum(axis=1)
        return float((rank < k).mean())

    def confusion(self) -> NDArray[np.int64]:
        """Return how many examples of each class (rows) were taken for each class (columns): [k, k]."""
        matrix = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix

    def per_class(self) -> dict[str, float]:
        """Return the top-1 of every class that has examples."""
        matrix = self.confusion()
        counts = matrix.sum(axis=1)
        return {name: float(matrix[i, i] / counts[i]) for i, name in enumerate(self.classes) if counts[i]}

    def metrics(self) -> dict[str, float]:
        """Return the summary: "top1", "top5", "loss", "count"."""
        return {
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": float(self.losses.mean()),
            "count": float(len(self.labels)),
        }


def classify(model: Classifier, source: Source, batch_size: int = 64, workers: int = 0) -> Predictions:
    """Return the predictions of `model` for every example of `source`, each exactly once.

    Labels are mapped by class name to the model's classes.

    Raises:
        DataError: the source has a class that the model does not know, or the model has no head.
        BadImagesError: some images cannot be decoded; each is named.
    """
    classes = model.classes or source.classes
    if model.settings.num_classes != len(classes):
        raise DataError(
            str(source),
            f"has {len(classes)} classes, {head_of(model)}",
            "fine-tune it first",
        )
    labels = class_indices(source.classes, classes, str(source))[source.labels]
    probabilities, keys = map_source(
        model, source, lambda images: functional.softmax(model(images).float(), dim=1), batch_size, workers
    )
    return Predictions(probabilities.numpy(), labels, keys, classes)


@dataclass
class Accuracy:
    """Evaluator: top-1, top-5 and loss on a source; `last` keeps the predictions of the latest call for reports."""

    source: Source
    batch_size: int = 64
    workers: int = 0
    last: Predictions | None = field(default=None, init=False)

    def __call__(self, model: Classifier) -> Mapping[str, float]:
        """Return "top1", "top5", "loss" and "count"."""
        self.last = classify(model, self.source, self.batch_size, self.workers)
        return self.last.metrics()


def wilson_interval(correct: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion, `correct` being the share seen in `total` trials (Wilson 1927)."""
    centre = correct + z * z / (2 * total)
    spread = z * math.sqrt(correct * (1 - correct) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
