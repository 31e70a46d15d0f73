"""What a budget of compute can train: the published recipes, and how many epochs of the paper's data sets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

from vitlab.cost.budget import EXAMPLE, Budget
from vitlab.cost.flops import cost, exaflops_of
from vitlab.errors import SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings
from vitlab.models.vit import ViTSettings
from vitlab.studies.costing import (
    Asked,
    Costed,
    Rows,
    as_asked,
    budget_of,
    costed,
    count,
    duration,
    figure,
    settings_of,
)
from vitlab.studies.recipe import Recipe, find_recipe, recipes
from vitlab.studies.table6 import Table6, table6

MODELS = ("S/16", "B/32", "B/16", "L/16", "H/14", "R50+L/16", "BiT-R152x2")
"""What the number of epochs is said of where no model was asked for."""


class Data(NamedTuple):
    """A data set that the paper pre-trains on: its name, how many images it has for training, and how many classes."""

    name: str
    images: int
    classes: int


class Affordable(NamedTuple):
    """What a published recipe takes of a budget; `fits` is None where the budget has no time."""

    recipe: str
    model: str
    data: str
    images: int
    epochs: float
    exaflops: float
    device_hours: float
    hours: float
    fits: bool | None


@cache
def pretraining_data() -> Mapping[str, Data]:
    """Return the paper's three data sets by the name that recipes call them."""
    known = (("imagenet", "ImageNet", 1000), ("imagenet21k", "ImageNet-21k", 21_843), ("jft", "JFT-300M", 18_291))
    found = {}
    for prefix, name, classes in known:
        recipe = find_recipe(f"{prefix}/B16")
        found[recipe.data] = Data(name, recipe.images or 0, classes)
    return found


def affordable(budget: Budget, model: AnySettings | None = None) -> list[Affordable]:
    """Return what each published pre-training takes, the cheapest first; with `model`, those of that model."""
    rows = [
        _row(recipe, budget, data)
        for recipe in recipes().values()
        if recipe.verb == "pretrain" and (data := pretraining_data().get(recipe.data)) is not None
        if model is None or recipe.model_for(model) is not None
    ]
    return sorted(rows, key=lambda row: row.exaflops)


@dataclass(frozen=True)
class Afforded:
    """What a budget can train: published recipes, and epochs of data sets by model (None without a time)."""

    budget: Budget
    recipes: list[Affordable]
    epochs: dict[str, dict[str, float | None]]

    def lines(self) -> list[str]:
        """Return what the budget is, for people."""
        budget = self.budget
        line = f"budget   {budget.count:,} × {budget.device}, at {budget.basis}"
        if budget.hours is None or budget.exaflops is None:
            return [line]
        return [f"{line}; {duration(budget.hours)}: {figure(budget.exaflops)} exaFLOPs"]

    def tables(self) -> list[Rows]:
        """Return the published recipes with what they take, and how many epochs the budget pays for; headings first."""
        timed = self.budget.hours is not None
        rows = [["recipe", "model", "data", "epochs", "exaFLOPs", "device-hours", "time", *(["fits"] if timed else [])]]
        for row in self.recipes:
            spent = [figure(row.exaflops), figure(row.device_hours), duration(row.hours)]
            cells = [row.recipe, row.model, row.data, f"{row.epochs:.3g}", *spent]
            rows.append(cells + (["yes" if row.fits else "no"] if timed else []))
        if not timed:
            return [rows]
        sets = list(next(iter(self.epochs.values())))
        epochs = [["epochs in all of it", *sets]]
        epochs += [[model, *(figure(number or 0) for number in found.values())] for model, found in self.epochs.items()]
        return [rows, epochs] if len(rows) > 1 else [epochs]

    def as_json(self) -> dict[str, Any]:
        """Return every number, for programs."""
        return {
            "budget": asdict(self.budget) | {"exaflops": self.budget.exaflops},
            "recipes": [row._asdict() for row in self.recipes],
            "epochs": self.epochs,
        }


def afforded(asked: Asked) -> Afforded:
    """Return what the budget that was asked for can train: of all published recipes, or of those of the model.

    Raises:
        RequestError: it is no budget, or there is no such model.
    """
    budget = budget_of(asked)
    if budget is None:
        raise SettingsError("--budget", "is missing", EXAMPLE)
    chosen = None if asked.model is None else as_asked(settings_of(asked.model)[0], asked)
    models = MODELS if asked.model is None else (asked.model,)
    sets = {f"{data.name} ({count(data.images)})": float(data.images) for data in pretraining_data().values()}
    if asked.train_images is not None:
        sets[f"{count(asked.train_images)} images"] = asked.train_images
    epochs: dict[str, dict[str, float | None]] = {}
    for name in models:
        macs = cost(chosen or name, asked.num_classes, asked.image_size).macs
        epochs[name] = {title: _epochs(budget, macs, images) for title, images in sets.items()}
    return Afforded(budget, affordable(budget, chosen), epochs)


def answer(asked: Asked) -> Table6 | Costed | Afforded:
    """Return what was asked for: the models of table 6 for nothing; what a budget can train; or what a model and its training cost.

    Raises:
        RequestError: it cannot be answered.
    """
    if asked == Asked():
        return table6()
    if asked.model is None and asked.budget is not None and asked.epochs is None:
        return afforded(asked)
    found = costed(asked)
    return afforded(asked) if asked.budget is not None and found.training is None else found


def _epochs(budget: Budget, macs: int, images: float) -> float | None:
    once = exaflops_of(macs, images, 1)
    return None if budget.exaflops is None or once is None else budget.exaflops / once


def _row(recipe: Recipe, budget: Budget, data: Data) -> Affordable:
    images = recipe.images or data.images
    epochs = recipe.epochs or recipe.train.steps * recipe.train.batch_size / images
    exaflops = exaflops_of(_macs(recipe, data), images, epochs) or 0.0
    hours = budget.hours_for(exaflops)
    fits = None if budget.hours is None else hours <= budget.hours
    spent = exaflops, budget.device_hours(exaflops), hours, fits
    return Affordable(recipe.name, recipe.models[0], data.name, images, epochs, *spent)


def _macs(recipe: Recipe, data: Data) -> int:
    """Return the multiply-accumulates of the model of a recipe: a network that several have is counted once, and what is behind its
    features is added."""
    side = recipe.image_size or 224
    settings = recipe.fresh(settings_for(recipe.models[0], data.classes, side))
    trunk, features = _trunk(recipe.models[0], side)
    between = settings.representation_dim if isinstance(settings, ViTSettings) else None
    classes = settings.num_classes or 0
    return trunk + (features * between + between * classes if between else features * classes)


@cache
def _trunk(model: str, side: int) -> tuple[int, int]:
    """Return the multiply-accumulates of a named model without its head, and how many features the head reads."""
    found = cost(model, num_classes=1, image_size=side)
    features = found.parts[-1].macs
    return found.macs - features, features
