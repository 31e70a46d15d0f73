"""What was measured of a model's speed, as tables, as JSON and as figure 12."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitlab.cost.memory import Memory, forward_bytes_per_image, training_memory
from vitlab.errors import SettingsError
from vitlab.inspection.charts import Curve, curves
from vitlab.inspection.drawing import Drawing
from vitlab.models.classifier import AnySettings
from vitlab.studies.costing import Rows, Training, duration, figure, megabytes
from vitlab.studies.speed import MODES, Bench, Mode, Point

PANELS = ("images a second", "largest batch")


@dataclass(frozen=True)
class Measured:
    """The points that were measured of `models`, which are one at several sizes; all of them, unless somebody was in a hurry."""

    name: str
    models: Sequence[AnySettings]
    bench: Bench
    points: Sequence[Point]
    training: Training | None = None

    def tables(self) -> list[Rows]:
        """Return the speeds by mode and size, and the memory by size and part; headings first."""
        speeds: list[Rows] = []
        for mode in MODES:
            found = [point for point in self.points if point.mode == mode]
            heading = [f"{mode}, pixels", "images/s", "at batch", "used", "largest batch"]
            speeds += [[heading, *map(_cells, found)]] if found else []
        return [*speeds, self._memory()]

    def lines(self) -> list[str]:
        """Return where and how it was measured, what was left out, and how long the training takes."""
        rate, scale, unit = (
            self.bench.matrix_rate,
            *((1e12, "TFLOP/s") if self.bench.matrix_rate >= 1e12 else (1e9, "GFLOP/s")),
        )
        lines = [
            f"device   {self.bench}; 100 % used are {figure(rate / scale)} {unit}, its rate at large matrix products"
        ]
        lines += [f"training takes {ratio} as long as inference" for ratio in self._ratios()]
        lines += [
            f"left out {one.mode} at {one.image_size} pixels: {one.left_out}" for one in self.points if one.left_out
        ]
        if (hours := self.hours) is not None:
            lines.append(f"time     {figure(hours)} device-hours at the measured speed: {duration(hours)} on this one")
        return lines

    @property
    def hours(self) -> float | None:
        """The hours that the training takes on this device at the speed that was measured, None without one of them."""
        point = self._point(self.models[0], "training") if len(self.models) == 1 else None
        if self.training is None or point is None or point.images_per_second is None:
            return None
        return self.training.images * self.training.epochs / point.images_per_second / 3600

    def as_json(self) -> dict[str, Any]:
        """Return every number, for programs."""
        bench = self.bench
        memory = [{"image_size": list(one.image_size), **_parts(one, self._half)} for one in self.models]
        return {
            "model": self.name,
            "device": {"name": str(bench), "precision": bench.precision, "matrix_rate": bench.matrix_rate},
            "points": [point.as_json() for point in self.points],
            "memory": memory,
            "device_hours": self.hours,
        }

    def drawing(self) -> Drawing:
        """Draw both panels of figure 12 with a logarithmic scale.

        Raises:
            SettingsError: nothing was measured.
        """
        panels: dict[str, dict[str, Curve]] = {}
        for title, value in zip(PANELS, ("images_per_second", "largest_batch"), strict=True):
            for mode in MODES:
                found = [(_side(one), getattr(one, value)) for one in self.points if one.mode == mode]
                found = [(side, number) for side, number in found if number]
                if found:
                    sides, numbers = zip(*found, strict=True)
                    panels.setdefault(title, {})[f"{self.name}, {mode}"] = list(sides), list(numbers)
        if not panels:
            raise SettingsError("--out", "nothing was measured that could be drawn", "give more --seconds")
        return curves(panels, "side of the image, pixels", log=True)

    def _ratios(self) -> list[str]:
        """Return how many times as long an image takes in training: the paper found it much the same for all models."""
        rates = {(one.mode, one.image_size): one.images_per_second for one in self.points}
        pairs = [
            (rates.get(("inference", one.image_size)), rates.get(("training", one.image_size))) for one in self.models
        ]
        found = [inference / training for inference, training in pairs if inference and training]
        return (
            []
            if not found
            else [f"{min(found):.1f} times"]
            if len(found) == 1
            else [f"{min(found):.1f}–{max(found):.1f} times"]
        )

    @property
    def _half(self) -> bool:
        return self.bench.precision == "bfloat16"

    def _memory(self) -> Rows:
        rows = [["memory, pixels", "weights", "gradients", "Adam", "an image in training", "an image in inference"]]
        for settings in self.models:
            parts = _parts(settings, self._half)
            rows.append([str(settings.image_size), *map(megabytes, parts.values())])
        return rows

    def _point(self, settings: AnySettings, mode: Mode) -> Point | None:
        return next((one for one in self.points if (one.image_size, one.mode) == (settings.image_size, mode)), None)


def said(point: Point) -> str:
    """Return a point in a line, as it is told when it is there."""
    where = f"{point.mode} at {point.image_size} pixels"
    if point.images_per_second is None:
        return f"{where}: left out, {point.left_out}"
    return f"{where}: {figure(point.images_per_second)} images/s in batches of {point.batch_size}"


def _cells(point: Point) -> list[str]:
    largest = "not known" if point.largest_batch is None else f"{point.largest_batch:,}"
    if point.images_per_second is None:
        return [str(point.image_size), "", "", "", ""]
    used = f"{100 * (point.utilisation or 0):.0f} %"
    return [str(point.image_size), figure(point.images_per_second), f"{point.batch_size:,}", used, largest]


def _parts(settings: AnySettings, half: bool) -> dict[str, int]:
    """Return the estimated bytes of each part of the memory; the activations are those of one image."""
    one, two = (training_memory(settings, images, half=half, on_host=False) for images in (1, 2))
    memory = Memory(one.weights, one.gradients, one.optimizer, two.activations - one.activations)
    return {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "training_image": memory.activations,
        "inference_image": forward_bytes_per_image(settings),
    }


def _side(point: Point) -> int:
    return round(math.sqrt(math.prod(point.image_size)))
