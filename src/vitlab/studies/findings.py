"""What the report says of predictions: a verdict in numbers, the worst mistakes, drawings by class; for either kind of labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.labels import label_at
from vitlab.data.limits import LIMITS, Limits
from vitlab.data.loader import pixels_of
from vitlab.data.source import Source
from vitlab.evals.classify import AnyPredictions, Predictions
from vitlab.evals.interval import wilson_interval
from vitlab.evals.multilabel import THRESHOLD, MultiLabelPredictions
from vitlab.inspection import charts
from vitlab.inspection.drawing import Drawing

MISTAKES = 12
SHOWN = 4
"""So many classes of one image are written out."""


@dataclass(frozen=True)
class Evaluation:
    """The predictions on a source, which the report shows; `name` is what the metrics call it."""

    name: str
    source: Source
    predictions: AnyPredictions
    limits: Limits = LIMITS


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows, in words."""

    title: str
    text: str
    drawing: Drawing


def verdict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the numbers that the page begins with; `several` tells which of its two texts they are for."""
    predictions = evaluation.predictions
    same = {"source": str(evaluation.source), "classes": len(predictions.classes), "total": len(predictions.labels)}
    if isinstance(predictions, MultiLabelPredictions):
        return same | _several(predictions)
    counts = np.bincount(predictions.labels, minlength=len(predictions.classes))
    top1, total = predictions.top(1), len(predictions.labels)
    low, high = wilson_interval(top1, total)
    return same | {
        "several": False,
        "correct": round(top1 * total),
        "top1": top1,
        "low": low,
        "high": high,
        "top5": predictions.top(5) if len(predictions.classes) > 5 else None,
        "guess": counts.max() / total,
        "commonest": predictions.classes[int(counts.argmax())],
    }


def _several(predictions: MultiLabelPredictions) -> dict[str, Any]:
    values, labelled = predictions.metrics(), predictions.labelled
    low, high = wilson_interval(values["top1"], labelled)
    present = predictions.truth.any(axis=0)
    return {
        "several": True,
        "map": values["map"],
        "guess": predictions.truth.mean(axis=0)[present].mean(),
        "present": int(present.sum()),
        "threshold": THRESHOLD,
        "named": int(predictions.named.sum()),
        "precision": values["precision"],
        "labels": int(predictions.truth.sum()),
        "recall": values["recall"],
        "labelled": labelled,
        "correct": round(values["top1"] * labelled),
        "top1": values["top1"],
        "low": low,
        "high": high,
    }


def mistakes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the images that the model got wrong with the greatest confidence, each with what is wrong and what is true."""
    predictions = evaluation.predictions
    said, confidence, wrong = _worst(predictions)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return [
        {
            "image": pixels_of(evaluation.source.read(int(index)), evaluation.limits),
            "true": true_words(predictions, int(index)),
            "predicted": said[index],
            "confidence": float(confidence[index]),
            "key": predictions.keys[index],
        }
        for index in worst
    ]


def _worst(predictions: AnyPredictions) -> tuple[list[str], NDArray[np.floating], NDArray[np.int64]]:
    """Return of every image the answer that is said worst, how sure the model was of it, and the images where it is wrong."""
    if isinstance(predictions, Predictions):
        predicted = predictions.predicted
        said = [predictions.classes[index] for index in predicted]
        return said, predictions.probabilities.max(axis=1), np.flatnonzero(predicted != predictions.labels)
    off = predictions.named != predictions.truth
    sure = np.where(predictions.named, predictions.probabilities, 1 - predictions.probabilities)
    worst = np.where(off, sure, -1).argmax(axis=1)
    rows = np.arange(len(worst))
    said = [("" if predictions.named[row, c] else "no ") + predictions.classes[c] for row, c in enumerate(worst)]
    return said, sure[rows, worst], np.flatnonzero(off.any(axis=1))


def true_words(predictions: AnyPredictions, index: int) -> str:
    """Return the classes of an image in words."""
    label = label_at(predictions.labels, index)
    places = (label,) if isinstance(label, int) else label
    return _listed([predictions.classes[place] for place in places]) or "none of the classes"


def said_words(predictions: AnyPredictions, index: int) -> str:
    """Return what the model names on an image, and, where that is wrong, what it is."""
    if isinstance(predictions, Predictions):
        named = [int(predictions.predicted[index])]
        right = named[0] == predictions.labels[index]
    else:
        named = np.flatnonzero(predictions.named[index]).tolist()
        right = bool((predictions.named[index] == predictions.truth[index]).all())
    shares = predictions.probabilities[index]
    words = _listed([f"{predictions.classes[c]} ({100 * shares[c]:.0f} %)" for c in named]) or "nothing"
    return words if right else f"{words}, is {true_words(predictions, index)}"


def _listed(words: list[str]) -> str:
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def by_class(predictions: AnyPredictions) -> list[Figure]:
    """Return the drawings of how well each class does."""
    if isinstance(predictions, MultiLabelPredictions):
        text = "How well the images that show a class are ranked before those that do not: the precision at each of them, averaged."
        return [
            Figure("Average precision by class", text, charts.bars(predictions.per_class(), "average precision")),
        ]
    return [
        Figure(
            "Accuracy by class",
            "The share of each class's images that the model named right.",
            charts.bars(predictions.per_class(), "top-1 accuracy"),
        ),
        Figure(
            "What is taken for what",
            "Each row is a true class; the numbers count what its images were taken for. A perfect model fills only the diagonal.",
            charts.confusion(predictions.confusion(), predictions.classes),
        ),
    ]
