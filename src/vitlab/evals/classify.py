"""Classification on every example of a source: top-1, top-5, loss, per class, confusion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.labels import Labels, distinct, is_multi_label, renumber
from vitlab.data.layouts.examples import are_synsets, imagenet_synsets, in_words
from vitlab.data.source import Source, class_indices
from vitlab.errors import DataError, NonFiniteError
from vitlab.evals.calibration import Calibration, brier_score, calibrate
from vitlab.evals.features import map_source
from vitlab.evals.interval import wilson_interval
from vitlab.evals.multilabel import TOP, MultiLabelPredictions, most_probable, refuse_unlabelled, shown_share
from vitlab.models.classifier import Classifier, head_of, probabilities_of
from vitlab.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Predictions:
    """What a model says of every example: probabilities [n, k], labels [n], and the examples' names, in the source's order."""

    probabilities: NDArray[np.float32]
    labels: Labels
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

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which examples count: all."""
        return np.ones(len(self.labels), np.bool_)

    @cached_property
    def leaders(self) -> NDArray[np.int64]:
        """The most probable classes of every example, most probable first: [n, 5], or [n, k] where there are fewer."""
        return most_probable(self.probabilities, TOP)

    @property
    def calibration(self) -> Calibration:
        """How sure the model is of its answers, and how often they are right."""
        return calibrate(self.probabilities.max(axis=1), self.hits(1))

    def hits(self, k: int) -> NDArray[np.bool_]:
        """Return of every example whether its class is among the `k` most probable: [n]."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        before = np.arange(len(self.classes)) < self.labels[:, None]
        rank = ((self.probabilities > own[:, None]) | ((self.probabilities == own[:, None]) & before)).sum(axis=1)
        return rank < k

    def top(self, k: int) -> float:
        """Return the share of examples whose class is among the `k` most probable (all classes count when there are fewer)."""
        return float(self.hits(k).mean())

    def confusion(self) -> NDArray[np.int64]:
        """Return how many examples of each class (rows) were taken for each class (columns): [k, k]."""
        matrix = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(matrix, (self.labels, self.predicted), 1)
        return matrix

    def per_class(self) -> dict[str, float]:
        """Return the top-1 of every class that has examples; names that repeat are numbered."""
        matrix = self.confusion()
        counts = matrix.sum(axis=1)
        return {name: float(matrix[i, i] / counts[i]) for i, name in enumerate(distinct(self.classes)) if counts[i]}

    def metrics(self) -> dict[str, float]:
        """Return the summary: "top1", "top5", "loss", "count"."""
        return {
            "top1": self.top(1),
            "top5": self.top(5),
            "loss": float(self.losses.mean()),
            "count": float(len(self.labels)),
        }

    def summary(self) -> str:
        """Return the numbers in a line, for people."""
        low, high = wilson_interval(self.top(1), len(self.labels))
        return (
            f"top-1 {100 * self.top(1):.1f} % on {len(self.labels):,} images "
            f"(95 % interval {100 * low:.1f}–{100 * high:.1f}), top-5 {100 * self.top(5):.1f} %"
        )

    def table(self) -> list[str]:
        """Return the numbers in lines, for people."""
        values, calibration = self.metrics(), self.calibration
        return [
            f"top-1  {shown_share(values['top1'], len(self.labels))}",
            f"top-5  {shown_share(values['top5'], len(self.labels))}",
            f"loss   {values['loss']:6.4f}",
            f"ECE    {100 * calibration.ece:6.2f} %   (expected calibration error, {len(calibration.counts)} bins)",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for programs."""
        intervals = {f"top{k}_interval": list(wilson_interval(self.top(k), len(self.labels))) for k in (1, TOP)}
        brier = brier_score(self.probabilities, self.labels)
        calibration = {**self.calibration.as_json(), "brier": brier, "nll": float(self.losses.mean())}
        return {**self.metrics(), **intervals, "calibration": calibration, "per_class": self.per_class()}


AnyPredictions = Predictions | MultiLabelPredictions


def classify(
    model: Classifier, source: Source, batch_size: int = 64, workers: int = 0, ranks: Ranks = ALONE
) -> AnyPredictions:
    """Return the predictions of `model` for every example of `source`, each exactly once; the `ranks` share the work.

    Labels are mapped by class name to the model's classes. Where the model or the source is for several labels an image the
    predictions are `MultiLabelPredictions`; so a model of one class an image can be counted by several right answers.

    Raises:
        DataError: the source has a class that the model does not know, or no label at all, or the model has no head.
        BadImagesError: some images cannot be decoded; each is named.
        NonFiniteError: the model gives an image no numbers; it is named.
    """
    classes, labels = labels_for(model, source)
    if model.probabilities == "sigmoid":  # in float64, where what is nearly certain is not yet 1
        logits, keys = map_source(model, source, model, batch_size, workers, ranks)
        _refuse_nonfinite(logits, keys, source)
        return MultiLabelPredictions(logits.double().sigmoid().numpy(), labels, keys, classes)
    probabilities, keys = map_source(
        model, source, lambda images: probabilities_of(model, model(images)), batch_size, workers, ranks
    )
    _refuse_nonfinite(probabilities, keys, source)
    if is_multi_label(labels):
        return MultiLabelPredictions(probabilities.numpy(), labels, keys, classes, exclusive=True)
    return Predictions(probabilities.numpy(), labels, keys, classes)


def labels_for(model: Classifier, source: Source) -> tuple[tuple[str, ...], Labels]:
    """Return the classes of the model's outputs and the labels of `source` as their numbers.

    Weights that name no classes, as the paper's own, are taken to have those of the source in its order, or, where these are some
    of ImageNet's synsets and the model has 1,000 outputs, ImageNet's: they are in the order of their synsets everywhere. Where
    one side names ImageNet's classes by synset and the other in words, the words are compared.

    Raises:
        DataError: as `classify`.
    """
    classes, found = model.classes or source.classes, source.classes
    if not model.classes and model.settings.num_classes == len(imagenet_synsets()) and are_synsets(found):
        classes = tuple(imagenet_synsets())
    elif are_synsets(classes) != are_synsets(found):
        classes, found = in_words(classes), in_words(found)
    if model.settings.num_classes != len(classes):
        raise DataError(str(source), f"has {len(classes)} classes, {head_of(model)}", "fine-tune it first")
    refuse_unlabelled(source)
    return classes, renumber(source.labels, class_indices(found, classes, str(source)))


def _refuse_nonfinite(outputs: Tensor, keys: tuple[str, ...], source: Source) -> None:
    """Refuse outputs [n, k] that are not numbers, by the images; they would be counted as right."""
    bad = (~outputs.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        what = f"the model's outputs are not finite numbers for {len(bad):,} of {len(keys):,} images, the first '{keys[bad[0]]}'"
        raise NonFiniteError(str(source), what, "its weights have diverged or are damaged: use others")


@dataclass
class Accuracy:
    """Evaluator: top-1, top-5 and loss on a source, or mAP and more where images have several labels.

    `last` keeps the predictions of the latest call for reports.
    """

    source: Source
    batch_size: int = 64
    workers: int = 0
    ranks: Ranks = ALONE
    last: AnyPredictions | None = field(default=None, init=False)

    def __call__(self, model: Classifier) -> Mapping[str, float]:
        """Return "top1", "top5", "loss" and "count", or what `MultiLabelPredictions.metrics` does."""
        self.last = classify(model, self.source, self.batch_size, self.workers, self.ranks)
        return self.last.metrics()
