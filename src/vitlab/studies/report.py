"""The report of a run: one self-contained page that a person who knows no machine learning can read."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from vitlab import files
from vitlab.data.loader import pixels_of
from vitlab.data.source import Source
from vitlab.evals.classify import Predictions, wilson_interval
from vitlab.inspection import figures
from vitlab.inspection.attention import attends_globally
from vitlab.inspection.figures import Drawing
from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViT
from vitlab.train.run import read_metrics

MISTAKES, LOOKS = 12, 8


@dataclass(frozen=True)
class Evaluation:
    """The predictions on a source, which the report shows; `name` is what the metrics call it."""

    name: str
    source: Source
    predictions: Predictions


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows, in words."""

    title: str
    text: str
    drawing: Drawing


def write_report(
    folder: Path, model: Classifier, evaluation: Evaluation | None, differences: list[str], command: str
) -> Path:
    """Write `report/index.html` into the run `folder` and return its path."""
    events = read_metrics(folder)
    settings = json.loads((folder / "config.json").read_text())
    context: dict[str, Any] = {
        "title": folder.name,
        "command": command,
        "differences": differences,
        "settings": json.dumps(settings, indent=2, ensure_ascii=False),
        "environment": json.loads((folder / "environment.json").read_text()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "model": model.settings,
        "figures": [
            Figure(
                "How training went",
                "Loss falls as the model learns; accuracy is on images it was not trained on.",
                training_curves(events),
            )
        ],
        "summary": None,
        "mistakes": [],
    }
    if evaluation is not None:
        context["summary"] = _summary(evaluation)
        context["mistakes"] = _mistakes(evaluation)
        context["figures"] += _figures(model, evaluation)
    path = folder / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    files.write_atomic(path, render("report.html", context).encode())
    return path


def render(template: str, context: dict[str, Any]) -> str:
    """Return the page `template` of this package filled with `context`; every value is escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = svg_markup
    environment.filters["uri"] = figures.to_data_uri
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    pages = resources.files("vitlab.studies")
    style = Markup((pages / "page.css").read_text(encoding="utf-8"))
    return environment.from_string((pages / template).read_text(encoding="utf-8")).render(**context, style=style)


def svg_markup(drawing: Drawing) -> Markup:
    """Return a drawing as SVG to be set into a page; matplotlib escapes the text in it."""
    return Markup(drawing.svg())


def training_curves(events: list[dict[str, Any]]) -> Drawing:
    """Draw loss and top-1 of a run's metrics by step."""
    loss: dict[str, figures.Curve] = {}
    top1: dict[str, figures.Curve] = {}
    for name in dict.fromkeys(event["name"] for event in events):
        points = [(event["step"], event["value"]) for event in events if event["name"] == name]
        curve = ([x for x, _ in points], [y for _, y in points])
        if name.endswith("/loss"):
            loss[name.removesuffix("/loss")] = curve
        elif name.endswith("/top1"):
            top1[name.removesuffix("/top1")] = curve
    return figures.curves({"loss": loss, "top-1 accuracy": top1} if top1 else {"loss": loss})


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    predictions = evaluation.predictions
    counts = np.bincount(predictions.labels, minlength=len(predictions.classes))
    top1, total = predictions.top(1), len(predictions.labels)
    low, high = wilson_interval(top1, total)
    return {
        "source": str(evaluation.source),
        "total": total,
        "correct": round(top1 * total),
        "top1": top1,
        "low": low,
        "high": high,
        "top5": predictions.top(5) if len(predictions.classes) > 5 else None,
        "classes": len(predictions.classes),
        "guess": counts.max() / total,
        "commonest": predictions.classes[int(counts.argmax())],
    }


def _mistakes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the images that the model got wrong with the greatest confidence."""
    predictions = evaluation.predictions
    predicted = predictions.predicted
    confidence = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != predictions.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return [
        {
            "image": pixels_of(evaluation.source.read(int(index))),
            "true": predictions.classes[int(predictions.labels[index])],
            "predicted": predictions.classes[int(predicted[index])],
            "confidence": float(confidence[index]),
            "key": predictions.keys[index],
        }
        for index in worst
    ]


def _figures(model: Classifier, evaluation: Evaluation) -> list[Figure]:
    predictions = evaluation.predictions
    shown = [
        Figure(
            "Accuracy by class",
            "The share of each class's images that the model named right.",
            figures.bars(predictions.per_class(), "top-1 accuracy"),
        ),
        Figure(
            "What is taken for what",
            "Each row is a true class; the numbers count what its images were taken for. A perfect model fills only the diagonal.",
            figures.confusion(predictions.confusion(), predictions.classes),
        ),
    ]
    return [*shown, _looks(model, evaluation)] if attends_globally(model) else shown


def _looks(model: ViT, evaluation: Evaluation) -> Figure:
    """Return the rollout figure of a few test images."""
    predictions = evaluation.predictions
    shown = np.linspace(0, len(predictions.labels) - 1, min(LOOKS, len(predictions.labels))).astype(int)
    pairs = [figures.rollout_overlay(model, pixels_of(evaluation.source.read(int(index)))) for index in shown]
    titles = [
        f"{predictions.classes[int(predictions.predicted[i])]} ({100 * predictions.probabilities[i].max():.0f} %)"
        + (
            ""
            if predictions.predicted[i] == predictions.labels[i]
            else f", is {predictions.classes[int(predictions.labels[i])]}"
        )
        for i in shown
    ]
    return Figure(
        "What the model looks at",
        "Beside each image, the parts that reach the decision are bright (attention rollout). "
        "The images are evenly spaced through the test data, not chosen.",
        figures.rollouts([image for image, _ in pairs], [look for _, look in pairs], titles),
    )
