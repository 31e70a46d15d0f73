"""The report of a run: one self-contained page that a person who knows no machine learning can read."""

import json
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from vitlab import files
from vitlab.data.loader import pixels_of
from vitlab.inspection import charts, figures
from vitlab.inspection.attention import attends_globally
from vitlab.inspection.drawing import Drawing, to_data_uri
from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViT
from vitlab.studies.findings import Evaluation, Figure, by_class, mistakes, said_words, verdict
from vitlab.studies.record import Record, read_record

LOOKS = 8
SPEED = "images a second"


def write_report(
    folder: Path, model: Classifier, evaluation: Evaluation | None, differences: list[str], command: str
) -> Path:
    """Write `report/index.html` into the run `folder` and return its path."""
    record = read_record(folder)
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
                "Loss falls as the model learns; accuracy or precision is on images it was not trained on.",
                training_curves(record),
            )
        ],
        "summary": None,
        "mistakes": [],
        "speed": speed(record),
    }
    context["figures"] += _steering(record)
    if evaluation is not None:
        context["summary"] = verdict(evaluation)
        context["mistakes"] = mistakes(evaluation)
        context["figures"] += by_class(evaluation.predictions)
        context["figures"] += [_looks(model, evaluation)] if attends_globally(model) else []
    path = folder / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    files.write_atomic(path, render("report.html", context).encode())
    return path


def render(template: str, context: dict[str, Any]) -> str:
    """Return the page `template` of this package filled with `context`; every value is escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["svg"] = svg_markup
    environment.filters["uri"] = to_data_uri
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    style = page_file("page.css")
    return environment.from_string(page_file(template)).render(**context, style=style)


def page_file(name: str) -> Markup:
    """Return a file of this package that belongs into a page as it is: a template, a style, a script."""
    return Markup((resources.files("vitlab.studies") / name).read_text(encoding="utf-8"))


def svg_markup(drawing: Drawing) -> Markup:
    """Return a drawing as SVG to be set into a page; matplotlib escapes the text in it."""
    return Markup(drawing.svg())


def training_curves(record: Record) -> Drawing:
    """Draw loss and mean average precision, or where there is none top-1, of a run's metrics by step."""
    loss: dict[str, charts.Curve] = {}
    top1: dict[str, charts.Curve] = {}
    precision: dict[str, charts.Curve] = {}
    for name in record.last:
        curve = record.curve(name)
        if name.endswith("/loss"):
            loss[name.removesuffix("/loss")] = curve
        elif name.endswith("/top1"):
            top1[name.removesuffix("/top1")] = curve
        elif name.endswith("/map"):
            precision[name.removesuffix("/map")] = curve
    second = {"mean average precision": precision} if precision else {"top-1 accuracy": top1} if top1 else {}
    return charts.curves({"loss": loss, **second})


def speed(record: Record) -> dict[str, Any] | None:
    """Return how long a run took and how fast it was, in words and numbers for people; None where nothing was measured."""
    rate, used, memory = (
        record.typical(f"train/{name}") for name in ("images_per_second", "utilisation", "memory_bytes")
    )
    if rate is None or used is None or memory is None:
        return None
    waits = [(event.name, event.value) for event in record.timing]
    trained = sum(value for name, value in waits if name == "train/seconds")
    return {
        "took": str(timedelta(seconds=round(record.seconds))),
        "rate": rate,
        "used": used,
        "matrix_rate": record.typical("train/matrix_rate"),
        "memory": memory / 1e6,
        "saving": sum(value for name, value in waits if name == "train/checkpoint_seconds") / max(trained, 1e-9),
        "waiting": record.typical("train/data_wait"),
    }


def _steering(record: Record) -> list[Figure]:
    """Return the drawing of learning rate, gradient and speed by step, of what there is."""
    panels = {"learning rate": "lr", "gradient norm": "grad_norm", SPEED: "images_per_second"}
    drawn = {title: {"training": record.curve(f"train/{name}")} for title, name in panels.items()}
    drawn = {title: series for title, series in drawn.items() if series["training"][0]}
    if not drawn:
        return []
    text = (
        "The learning rate is how far each update goes; the gradient norm is how steep the loss was, before it was clipped. "
        "A steep rise there is the first sign of trouble."
    )
    return [Figure("How it was steered, and how fast it was", text, charts.curves(drawn, from_zero=(SPEED,)))]


def _looks(model: ViT, evaluation: Evaluation) -> Figure:
    """Return the rollout figure of a few test images."""
    predictions = evaluation.predictions
    shown = np.linspace(0, len(predictions.labels) - 1, min(LOOKS, len(predictions.labels))).astype(int)
    pairs = [
        figures.rollout_overlay(model, pixels_of(evaluation.source.read(int(index)), evaluation.limits))
        for index in shown
    ]
    titles = [said_words(predictions, int(index)) for index in shown]
    return Figure(
        "What the model looks at",
        "Beside each image, the parts that reach the decision are bright (attention rollout). "
        "The images are evenly spaced through the test data, not chosen.",
        figures.rollouts([image for image, _ in pairs], [look for _, look in pairs], titles),
    )
