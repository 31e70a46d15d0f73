"""What a person asks about cost: a model by its parts, the compute of its training, and the time that takes."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vitlab.config import parse, read_json
from vitlab.cost.budget import Budget, parse_budget
from vitlab.cost.flops import PASSES, Cost, cost, exaflops_of, resized
from vitlab.cost.memory import FLOAT, bytes_per_image, forward_bytes_per_image
from vitlab.errors import SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings
from vitlab.studies.duration import spoken
from vitlab.studies.recipe import RunSettings
from vitlab.studies.record import is_run
from vitlab.train.run import CONFIG
from vitlab.weights.hub import published
from vitlab.weights.load import find, read

Rows = list[list[str]]
SCALES = {"B": 1e9, "M": 1e6, "k": 1e3}

_TOO_MANY = 1e18  # images, or epochs: beyond it the figures are no numbers any more


@dataclass(frozen=True)
class Asked:
    """What a person asks: `model` is a name, a weights file or a run; None leaves a value to it, or out."""

    model: str | None = None
    image_size: int | tuple[int, int] | None = None
    num_classes: int | None = None
    train_images: float | None = None
    epochs: float | None = None
    rate: float | None = None
    budget: str | None = None
    utilisation: float | None = None


@dataclass(frozen=True)
class Training:
    """A training by how many images are shown, `epochs` times each."""

    images: float
    epochs: float
    exaflops: float


@dataclass(frozen=True)
class Costed:
    """What a model costs; `training` and `budget` are what was asked for, or for a run its own training."""

    name: str
    settings: AnySettings
    cost: Cost
    training: Training | None
    budget: Budget | None

    def tables(self) -> list[Rows]:
        """Return the parts of the model with their shares, a heading first."""
        rows = [["part", "parameters", "share", "GMACs", "share"]]
        total = self.cost.parameters, self.cost.macs
        for name, *numbers in (*self.cost.parts, ("in all", *total)):
            shares = [
                f"{100 * number / max(all_of_it, 1):.1f} %" for number, all_of_it in zip(numbers, total, strict=True)
            ]
            shown = f"{numbers[0]:,}", shares[0], f"{numbers[1] / 1e9:,.3f}", shares[1]
            rows.append([name, *(text if numbers[index // 2] else "" for index, text in enumerate(shown))])
        return [rows]

    def lines(self) -> list[str]:
        """Return what else there is to say, each behind its name."""
        gflops, kept = self.cost.gflops, [bytes_per_image(self.settings, half=half) for half in (False, True)]
        again = bytes_per_image(self.settings, remat=True)
        head = "no head" if self.settings.num_classes is None else f"{self.settings.num_classes:,} classes"
        lines = [
            f"model    {self.name}: {self.settings.describe()}, {head}",
            f"compute  {gflops:,.1f} GFLOPs an image (two a multiply-accumulate), {PASSES * gflops:,.1f} in training",
            f"weights  {megabytes(FLOAT * self.cost.parameters)} in float32",
            f"memory   about {megabytes(kept[0])} an image in training ({megabytes(kept[1])} in bfloat16, {megabytes(again)} with "
            f"--remat), {megabytes(forward_bytes_per_image(self.settings))} in inference",
        ]
        if self.training is not None:
            shown = f"{self.training.images:,.0f} images, {self.training.epochs:g} epochs"
            lines.append(f"training {figure(self.training.exaflops)} exaFLOPs: {shown}")
        return lines + (self.time() if self.training is not None else [])

    def time(self) -> list[str]:
        """Return how long the training takes with the budget, in a line or two."""
        if self.budget is None or self.training is None:
            return []
        budget, exaflops = self.budget, self.training.exaflops
        hours = budget.hours_for(exaflops)
        spent, devices = figure(budget.device_hours(exaflops)), f"{budget.count:,} × {budget.device}"
        lines = [f"time     {spent} device-hours: {duration(hours)} on {devices}, at {budget.basis}"]
        if budget.hours is not None:
            epochs = self.training.epochs * budget.hours / hours
            verdict = "it fits" if hours <= budget.hours else "it does not fit"
            lines.append(f"budget   {verdict}: {duration(budget.hours)} pay for {figure(epochs)} epochs")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return every number, for programs."""
        size = self.settings.image_size
        found = {
            "model": self.name,
            "image_size": [size.height, size.width],
            "num_classes": self.settings.num_classes,
            **{name: getattr(self.cost, name) for name in ("parameters", "macs", "gflops", "activation_bytes")},
            "forward_bytes": forward_bytes_per_image(self.settings),
            "parts": [part._asdict() for part in self.cost.parts],
        }
        if self.training is not None:
            found["training"] = asdict(self.training)
        if self.budget is not None:
            found["budget"] = asdict(self.budget) | {"exaflops": self.budget.exaflops}
            if self.training is not None:
                exaflops = self.training.exaflops
                found["device_hours"] = self.budget.device_hours(exaflops)
                found["hours"] = self.budget.hours_for(exaflops)
        return found


def costed(asked: Asked) -> Costed:
    """Return what the model that was asked for costs.

    Raises:
        RequestError: there is no such model, a size does not fit it, or numbers of the training are missing or out of range.
    """
    if asked.model is None:
        raise SettingsError("MODEL", "is missing", "give a name as B/16, a weights file or a run")
    settings, own = settings_of(asked.model)
    settings = as_asked(settings, asked)
    budget = budget_of(asked)
    found = cost(settings)
    images, epochs = _training(asked, own, budget)
    if images is None or epochs is None:
        if asked.rate is not None and asked.budget is None:
            raise SettingsError("--rate", "is for the time of a training", "give --train-images and --epochs")
        return Costed(asked.model, settings, found, None, budget)
    exaflops = exaflops_of(found.macs, images, epochs) or 0.0
    return Costed(asked.model, settings, replace(found, exaflops=exaflops), Training(images, epochs, exaflops), budget)


def as_asked(settings: AnySettings, asked: Asked) -> AnySettings:
    """Return `settings` with the size and the classes that were asked for.

    Raises:
        SettingsError: they do not fit the model.
    """
    try:
        return resized(settings, asked.num_classes, asked.image_size)
    except SettingsError as error:
        flag = "--image-size" if asked.image_size is not None else "--num-classes"
        raise SettingsError(f"{asked.model} with {flag}", error.what, error.remedy) from None


def settings_of(model: str) -> tuple[AnySettings, tuple[float, float] | None]:
    """Return the settings of a model by name, in a weights file or of a run, and for a run its own images and epochs.

    No weight is read.

    Raises:
        RequestError: there is no such model, or the file is broken.
    """
    if os.path.exists(model) and is_run(Path(model)):
        path = Path(model) / CONFIG
        run = parse(RunSettings, read_json(path), path)
        return run.model, (float(run.train.steps * run.train.batch_size), 1.0)
    if os.path.exists(model) or "://" in model or model in {each.name for each in published()}:
        return read(find(model)).settings, None
    try:
        return settings_for(model), None
    except SettingsError as error:
        if error.what.startswith("there is no model"):
            error = SettingsError("MODEL", f"there is no model, file or run '{model}'", error.remedy)
        raise error from None


def budget_of(asked: Asked) -> Budget | None:
    """Return the devices that were asked for; a rate alone is one device of it.

    Raises:
        SettingsError: they are none.
    """
    if asked.budget is not None:
        return parse_budget(asked.budget, asked.utilisation, asked.rate)
    if asked.utilisation is not None:
        raise SettingsError("--utilisation", "is the share of a device's peak", "say of which: --budget '8xH200'")
    return None if asked.rate is None else parse_budget("1 x device", rate=asked.rate)


def _training(
    asked: Asked, own: tuple[float, float] | None, budget: Budget | None
) -> tuple[float | None, float | None]:
    """Return images and epochs: what was asked for, else those of the run."""
    images, epochs = asked.train_images, asked.epochs
    if images is None and epochs is None:
        return own or (None, None)
    pays = budget is not None and budget.hours is not None  # then it decides the epochs
    if images is None or (epochs is None and not pays):
        flag, other = ("--train-images", "--epochs") if images is None else ("--epochs", "--train-images")
        raise SettingsError(flag, "is missing", f"{other} needs it: a training is so many images, so many times")
    for flag, number in (("--train-images", images), ("--epochs", epochs)):
        if number is not None and not 0 < number < _TOO_MANY:
            raise SettingsError(flag, f"{number:g} is no training", f"give a number above 0 and below {_TOO_MANY:g}")
    return images, epochs


def figure(number: float) -> str:
    """Return a number for people, of three figures or whole: "1,567", "12.4", "0.00032"."""
    return f"{number:,.0f}" if number >= 999.5 else f"{number:.3g}"


def count(number: float) -> str:
    """Return a number of things for people: "303M", "1.28M", "60k"."""
    mark, scale = next(((mark, scale) for mark, scale in SCALES.items() if number >= 0.9995 * scale), ("", 1))
    return f"{figure(number / scale)}{mark}"


def megabytes(size: float) -> str:
    """Return a number of bytes for people: "346 MB", "0.45 MB"."""
    return f"{figure(size / 1e6)} MB"


def duration(hours: float) -> str:
    """Return a time for people: "40 s", "1 h 20 min", "3 d 4 h", "2.5 years"."""
    years = hours / 24 / 365.25
    return f"{figure(years)} years" if years >= 2 else spoken(3600 * hours)
