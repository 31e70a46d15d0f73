"""What the models of table 6 cost to pre-train on JFT-300M, beside what the paper printed."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from vitlab.cost.flops import Cost, cost
from vitlab.models.catalog import settings_for
from vitlab.models.vit import ViTSettings
from vitlab.studies.published import read_table

JFT_IMAGES, JFT_CLASSES = 303_000_000, 18_291
MISPRINT = ("R50x1+ViT-L/16", 7)
"""The model and the epochs of the one number of table 6 that contradicts another."""


class Row(NamedTuple):
    """One line of table 6: the paper's name of the model, the length of the training, and its printed compute."""

    model: str
    epochs: int
    exaflops: int


class Compared(NamedTuple):
    """A line of table 6 beside our count: our name of the model, and `ratio`, ours by the paper's."""

    model: str
    epochs: int
    parameters: int
    gmacs: float
    exaflops: float
    paper: int
    ratio: float
    misprint: bool

    def cells(self) -> list[str]:
        """Return the line for people; a misprint is marked."""
        paper = f"{self.paper:,}" + (" *" if self.misprint else "")
        size = f"{self.parameters:,}", f"{self.gmacs:.2f}"
        return [self.model, str(self.epochs), *size, f"{self.exaflops:,.1f}", paper, f"{self.ratio:.3f}"]


def read_paper() -> list[Row]:
    """Return table 6 in the paper's order, without its accuracies."""
    return [Row(line["model"], int(line["epochs"]), int(line["exaFLOPs"])) for line in read_table("table6")]


def read_accuracies() -> list[dict[str, float]]:
    """Return the accuracies of table 6 in percent by data set, in the order of `read_paper`."""
    others = ("model", "epochs", "exaFLOPs")
    return [{name: float(line[name]) for name in line if name not in others} for line in read_table("table6")]


def name_of(model: str) -> str:
    """Return our name of a model of table 6: "ResNet50x1" is "BiT-R50x1", "R50x1+ViT-B/32" is "R50+B/32"."""
    return re.sub(r"^ResNet", "BiT-R", model).replace("x1+", "+").replace("ViT-", "")


def pretraining_cost(model: str) -> Cost:
    """Return what an epoch of pre-training a model of table 6 costs: with 18,291 classes, and a ViT's representation layer."""
    settings = settings_for(name_of(model), num_classes=JFT_CLASSES)
    if isinstance(settings, ViTSettings):
        settings = settings.model_copy(update={"representation_dim": settings.width})
    return cost(settings, train_images=JFT_IMAGES, epochs=1)


@dataclass(frozen=True)
class Table6:
    """Every line of table 6 beside our count, for people and programs."""

    rows: list[Compared]

    def tables(self) -> list[list[list[str]]]:
        """Return the table, a heading first."""
        heading = ["model", "epochs", "parameters", "GMACs", "exaFLOPs", "in the paper", "ours / paper"]
        return [[heading, *(row.cells() for row in self.rows)]]

    def lines(self) -> list[str]:
        """Return what the table amounts to."""
        farthest = max((row for row in self.rows if not row.misprint), key=lambda row: abs(row.ratio - 1))
        within = f"All others are within {100 * abs(farthest.ratio - 1):.1f} % ({farthest.model} is the farthest)."
        return [f"* {misprint_note()}", within]

    def as_json(self) -> list[dict[str, Any]]:
        """Return every number, for programs."""
        return [row._asdict() for row in self.rows]


@cache
def table6() -> Table6:
    """Return every line of table 6 beside our count."""
    paper = read_paper()
    costs = {model: pretraining_cost(model) for model in dict.fromkeys(row.model for row in paper)}
    return Table6([_compared(row, costs[row.model]) for row in paper])


def misprint_note() -> str:
    """Return what is wrong with the one number of the table that is not met."""
    twin = next(row.exaflops for row in read_paper() if row.model == MISPRINT[0] and row.epochs == 2 * MISPRINT[1])
    why = f"the same model costs {twin:,} for 14 epochs in the same table, and half of that is {twin // 2:,}"
    return f"A misprint, most likely: {why}."


def _compared(row: Row, ours: Cost) -> Compared:
    exaflops = row.epochs * (ours.exaflops or 0.0)
    size = ours.parameters, ours.macs / 1e9
    return Compared(
        name_of(row.model), row.epochs, *size, exaflops, row.exaflops, exaflops / row.exaflops, row[:2] == MISPRINT
    )
