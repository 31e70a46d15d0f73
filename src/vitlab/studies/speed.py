"""Images a second and the largest batch by image size, on this device, in inference and in training (figure 12)."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from vitlab.config import parse
from vitlab.cost.available import available_memory
from vitlab.cost.flops import FLOPS_PER_MAC, PASSES, cost
from vitlab.cost.memory import FLOAT, forward_bytes_per_image, training_memory
from vitlab.data.batch import Batch
from vitlab.errors import SettingsError
from vitlab.models.classifier import AnySettings, Classifier, build
from vitlab.nn.grid import Size
from vitlab.studies.resources import SPARE, fits_gpu, largest
from vitlab.train.config import TrainSettings
from vitlab.train.meter import matrix_rate
from vitlab.train.optimizer import Adam
from vitlab.train.precision import Precision, autocast, best_precision, dtype_of
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

SIZES = (64, 128, 224, 384, 512)
"""Sides of images in figure 12."""
Mode = Literal["inference", "training"]
MODES: tuple[Mode, ...] = ("inference", "training")
BATCHES = tuple(sorted({size << power for power in range(16) for size in (1, 3)}))
"""The batches among which the largest is looked for: 1, 2, 3, 4, 6, 8, 12, …, 98,304."""
GAIN = 1.02
"""A batch counts as faster only by so much; after two in a row that are not, none is tried."""

Prepare = Callable[[int], Callable[[], object]]
"""What makes a step of so many images, whose inputs lie ready on the device."""


@dataclass(frozen=True)
class Point:
    """What was measured at one size and in one mode: the peak over batches, the batch that it is at, and the largest that fits.

    `utilisation` is the share of the device's rate at large matrix products. `tried` are batches with their images a second.
    `largest_batch` is found by trying on a GPU, and by the estimate of memory elsewhere; 0 where not one image fits, None where the
    memory is not known. `peak_bytes` is what tensors on a GPU took at the peak. Without a speed, `left_out` says why.
    """

    image_size: Size
    mode: Mode
    images_per_second: float | None = None
    batch_size: int | None = None
    largest_batch: int | None = None
    utilisation: float | None = None
    peak_bytes: int | None = None
    tried: tuple[tuple[int, float], ...] = ()
    left_out: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return every number, for programs."""
        return asdict(self) | {"image_size": list(self.image_size)}


@dataclass(frozen=True)
class Bench:
    """Where and how is measured: the device, its FLOP/s at large matrix products, the precision, and the seconds for a point."""

    device: torch.device
    precision: Precision
    matrix_rate: float
    seconds: float

    @classmethod
    def on(cls, device: torch.device, seconds: float) -> "Bench":
        """Return a bench on `device`, in the precision that training has there by default.

        Raises:
            SettingsError: there is no time.
        """
        if not 0 < seconds < math.inf:
            raise SettingsError("--seconds", f"{seconds:g} is no time", "give seconds above 0")
        precision = best_precision(device)
        return cls(device, precision, matrix_rate(device, dtype_of(precision)), seconds)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"{platform.machine()} CPU"
        count = torch.get_num_threads()
        threads = f", {count} thread{'s' if count > 1 else ''}" if self.device.type == "cpu" else ""
        return f"{name}{threads}, {self.precision}, torch {torch.__version__}"


def sizes_for(settings: AnySettings, asked: bool) -> list[AnySettings]:
    """Return the model at the sizes that are measured: at its own alone if that was `asked` for, else also at those of figure 12
    that it can have."""
    if settings.num_classes is None:  # training needs something to learn
        settings = settings.model_copy(update={"num_classes": 1000})
    if asked:
        return [settings]
    found: list[AnySettings] = []
    for size in sorted({*(Size(side, side) for side in SIZES), settings.image_size}, key=math.prod):
        try:
            found.append(parse(type(settings), dict(settings) | {"image_size": size}, "--image-size"))
        except SettingsError:
            continue
    return found


def measure(models: Sequence[AnySettings], bench: Bench) -> Iterator[Point]:
    """Yield a point for each mode and each model, which are one at several sizes; the weights are fresh, the images random.

    A point takes about `bench.seconds`, but at least a step of one image. A training step is one of ours with Adam.
    """
    for settings in models:
        for mode in MODES:
            yield _point(settings, mode, bench)


def _point(settings: AnySettings, mode: Mode, bench: Bench) -> Point:
    size, flops = settings.image_size, FLOPS_PER_MAC * cost(settings).macs * (PASSES if mode == "training" else 1)
    if flops > bench.seconds * bench.matrix_rate:
        seconds = flops / bench.matrix_rate
        return Point(size, mode, left_out=f"an image takes {seconds:,.0f} s or more; see --seconds")
    limit = None if bench.device.type == "cuda" else _estimated(settings, mode, bench)
    if limit == 0:
        return Point(size, mode, largest_batch=0, left_out="not one image fits the memory")
    prepare = PREPARED[mode](build(settings).to(bench.device), bench)
    if bench.device.type == "cuda":
        limit = largest(BATCHES, lambda batch: fits_gpu(lambda: _two_steps(prepare, batch))) or 0
        torch.cuda.reset_peak_memory_stats(bench.device)
    tried = sweep(prepare, BATCHES[-1] if limit is None else limit, bench)
    if not tried:
        return Point(size, mode, largest_batch=0, left_out="not one image fits the memory")
    batch, rate = max(tried, key=lambda each: each[1])
    taken = torch.cuda.max_memory_allocated(bench.device) if bench.device.type == "cuda" else None
    return Point(size, mode, rate, batch, limit, rate * flops / bench.matrix_rate, taken, tuple(tried))


def sweep(prepare: Prepare, limit: int, bench: Bench) -> list[tuple[int, float]]:
    """Return batches 1, 2, 4, … up to `limit` with their images a second, until they gain nothing or the time is up."""
    tried, begun, batch = list[tuple[int, float]](), time.monotonic(), 1
    while batch <= limit:
        left = bench.seconds - (time.monotonic() - begun)
        if tried and 2 * batch / tried[-1][1] > left:  # two steps, one of them to warm up
            break
        tried.append((batch, batch / _step_seconds(prepare(batch), left / 4, bench.device)))
        best = max(rate for _, rate in tried[:-2]) if len(tried) > 2 else 0.0
        if max(rate for _, rate in tried[-2:]) < GAIN * best:
            break
        batch *= 2
    return tried


def _step_seconds(run: Callable[[], object], limit: float, device: torch.device) -> float:
    """Return the time of the fastest step in about `limit` seconds; the first, which loads programs, counts only if it took all."""
    first = _timed(run, device)
    if first > limit:
        return min(first, _timed(run, device)) if first < 3 * limit else first
    times = list[float]()
    while not times or sum(times) < limit - first:
        times.append(_timed(run, device))
    return min(times)


def _timed(run: Callable[[], object], device: torch.device) -> float:
    begun = time.monotonic()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.monotonic() - begun


def _inference(model: Classifier, bench: Bench) -> Prepare:
    model.eval()

    def prepare(batch: int) -> Callable[[], object]:
        images = torch.rand(batch, 3, *model.settings.image_size, device=bench.device)

        def run() -> object:
            with torch.inference_mode(), autocast(bench.device, bench.precision):
                return model(images)

        return run

    return prepare


def _training(model: Classifier, bench: Bench) -> Prepare:
    settings = TrainSettings(optimizer=Adam(), lr=1e-6, precision=bench.precision)
    state = TrainState.start(model, settings)

    def prepare(batch: int) -> Callable[[], object]:
        images = torch.randint(256, (batch, 3, *model.settings.image_size), dtype=torch.uint8, device=bench.device)
        labels = torch.zeros(batch, dtype=torch.int64, device=bench.device)
        data = Batch(images, labels, torch.ones_like(labels, dtype=torch.bool), ("",) * batch)
        own = settings.model_copy(update={"batch_size": batch})

        def run() -> object:
            state.step = 0
            return train_step(state, [data], own).read(state)

        return run

    return prepare


PREPARED: dict[Mode, Callable[[Classifier, Bench], Prepare]] = {"inference": _inference, "training": _training}


def _estimated(settings: AnySettings, mode: Mode, bench: Bench) -> int | None:
    """Return the largest batch by the estimate of memory, None where the memory is not known."""
    there = available_memory(bench.device)
    if there is None:
        return None
    half = bench.precision == "bfloat16"
    one, two = (
        training_memory(settings, images, half=half, on_host=False).total
        if mode == "training"
        else FLOAT * cost(settings).parameters + images * forward_bytes_per_image(settings)
        for images in (1, 2)
    )
    return max(0, int((SPARE * there - one) // (two - one)) + 1)


def _two_steps(prepare: Prepare, batch: int) -> None:
    """Make two steps of so many images, of which the second has all that an optimizer keeps."""
    run = prepare(batch)
    for _ in range(2):
        run()
