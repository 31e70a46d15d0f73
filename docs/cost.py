"""Write docs/cost.md, what the models of table 6 cost beside what the paper printed: `python docs/cost.py`."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from vitlab.cost.flops import Cost, cost
from vitlab.models.catalog import settings_for
from vitlab.models.vit import ViTSettings

PAPER = Path(__file__).with_name("table6.csv")
"""The paper's table 6, without its accuracies."""
TARGET = Path(__file__).with_name("cost.md")
JFT_IMAGES, JFT_CLASSES = 303_000_000, 18_291
MISPRINT = ("R50x1+ViT-L/16", 7)
"""The model and the epochs of the one number of table 6 that contradicts another."""
HEAD = """# What the models cost

Written by `python docs/cost.py`; do not edit.

The paper's table 6 states the compute of each pre-training on JFT-300M. `vitlab.cost` arrives at it from the models themselves:

    exaFLOPs = 3 (forward, and backward twice as much) · 2 (multiply, add) · MACs · 303 million images · epochs / 10¹⁸

MACs are the multiply-accumulates of one image of 224 pixels: matrix products, convolutions without the taps that fall on padding,
and the products of attention, for every token in every block. As in pre-training, a ViT has its representation layer (a hidden
layer of its own width before the head), and every model a head of 18,291 classes; both are in the parameters too.

| model | epochs | parameters | GMACs | exaFLOPs | in the paper | ours / paper |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""
FOOT = """
\\* A misprint, most likely: the same model costs {twin:,} for 14 epochs in the same table, and half of that is {half:,}.
"""


class Row(NamedTuple):
    """One line of table 6: the paper's name of the model, the length of the training, and its printed compute."""

    model: str
    epochs: int
    exaflops: int


def read_paper() -> list[Row]:
    """Return table 6 in the paper's order."""
    with PAPER.open(newline="") as file:
        return [Row(line["model"], int(line["epochs"]), int(line["exaFLOPs"])) for line in csv.DictReader(file)]


def name_of(model: str) -> str:
    """Return our name of a model of table 6: "ResNet50x1" is "BiT-R50x1", "R50x1+ViT-B/32" is "R50+B/32"."""
    return re.sub(r"^ResNet", "BiT-R", model).replace("x1+", "+").replace("ViT-", "")


def pretraining_cost(model: str, epochs: int) -> Cost:
    """Return what the pre-training of a model of table 6 costs by our count."""
    settings = settings_for(name_of(model), num_classes=JFT_CLASSES)
    if isinstance(settings, ViTSettings):
        settings = settings.model_copy(update={"representation_dim": settings.width})
    return cost(settings, train_images=JFT_IMAGES, epochs=epochs)


def page() -> str:
    """Return the text of docs/cost.md."""
    paper = read_paper()
    twin = next(row.exaflops for row in paper if row.model == MISPRINT[0] and row.epochs == 2 * MISPRINT[1])
    lines = [_line(row, pretraining_cost(row.model, row.epochs)) for row in paper]
    return HEAD + "\n".join(lines) + "\n" + FOOT.format(twin=twin, half=twin // 2)


def _line(row: Row, ours: Cost) -> str:
    mark = " \\*" if row[:2] == MISPRINT else ""
    exaflops = ours.exaflops or 0.0
    size = f"{ours.parameters:,} | {ours.macs / 1e9:.2f}"
    compared = f"{exaflops:,.1f} | {row.exaflops:,}{mark} | {exaflops / row.exaflops:.3f}"
    return f"| {name_of(row.model)} | {row.epochs} | {size} | {compared} |"


if __name__ == "__main__":
    TARGET.write_text(page())
