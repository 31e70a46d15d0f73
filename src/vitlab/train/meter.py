"""The meter: how fast a run goes, how much of its device it uses, and what it waits for.

Its figures differ from one run of the same settings to the next, so that they have a file of their own: `metrics.jsonl` is the
same to the byte.
"""

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TypeVar

import torch

from vitlab.cost import cost
from vitlab.cost.flops import FLOPS_PER_MAC, PASSES
from vitlab.models.classifier import AnySettings
from vitlab.train.step import StepResult
from vitlab.train.watcher import Quiet, Several, Watcher

log = logging.getLogger("vitlab")

TIMING = "timing.jsonl"
MEASURE_SECONDS = 0.3
SIDES = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices by kind of device: large enough for its full rate, small beside its memory."""
BURST_FLOPS = 1e10
"""One reading of the clock is for at least so much work."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """What speed is measured by: the work in an image, forward and backward, and the FLOP/s of `device` at matrix products.

    Where several devices train, `matrix_rate` is that of all together.
    """

    flops_per_image: float
    matrix_rate: float
    device: torch.device


class Meter(Quiet):
    """Writes into `file` and tells `watchers`, whenever training figures are logged, how the time since then was spent.

    The names begin with "train/". `images_per_second` is of the time that went into training, without evaluations and
    checkpoints. `utilisation` is the share of the device's `matrix_rate` that the model's own products use, by the count of
    `vitlab.cost`: forward and twice that backward; what activation checkpointing repeats does not count. `data_wait` is the
    share of the training time in which the loop stood waiting for images. `memory_bytes` is the peak of the process, on a GPU
    that of its tensors.
    """

    def __init__(self, pace: Pace, file: "TimingFile", *watchers: Watcher) -> None:
        self._pace, self._file, self._told = pace, file, Several(*watchers)
        self._batch_size = self._step = 0
        self._since = self._last = self._waiting = self._evaluating = self._saving = 0.0

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Begin at `step`; the device's rate is told at once."""
        del steps
        self._batch_size = batch_size
        self._tell(step, {"train/matrix_rate": self._pace.matrix_rate})
        self._reset(step)

    def waited(self, seconds: float) -> None:
        """Count time without images."""
        self._waiting += seconds
        self._last = time.monotonic()

    def stepped(self, step: int, result: StepResult) -> None:
        """Note when the update was made."""
        del step, result
        self._last = time.monotonic()

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Count the time since the last event: no training."""
        del step, values
        now = time.monotonic()
        self._evaluating += now - self._last
        self._last = now

    def saved(self, step: int, seconds: float) -> None:
        """Count the time that the checkpoint took: no training."""
        del step
        self._saving += seconds
        self._last = time.monotonic()

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Tell the figures of the steps since the last time."""
        del values
        images = (step - self._step) * self._batch_size
        seconds = time.monotonic() - self._since - self._evaluating - self._saving
        if images <= 0 or seconds <= 0:
            return
        rate = images / seconds
        figures = {
            "train/images_per_second": rate,
            "train/utilisation": rate * self._pace.flops_per_image / self._pace.matrix_rate,
            "train/data_wait": min(1.0, self._waiting / seconds),
            "train/memory_bytes": float(peak_memory(self._pace.device)),
            "train/seconds": seconds,
        }
        figures |= self._interruptions()
        self._reset(step)
        self._tell(step, figures)

    def close(self) -> None:
        """Write what came after the last update, and close the file."""
        self._file.write(self._step, self._step * self._batch_size, self._interruptions())
        self._file.close()

    def _interruptions(self) -> dict[str, float]:
        times = {"train/evaluation_seconds": self._evaluating, "train/checkpoint_seconds": self._saving}
        return {name: seconds for name, seconds in times.items() if seconds}

    def _tell(self, step: int, figures: Mapping[str, float]) -> None:
        self._file.write(step, step * self._batch_size, figures)
        self._told.logged(step, figures)

    def _reset(self, step: int) -> None:
        self._step, self._since = step, time.monotonic()
        self._last, self._waiting, self._evaluating, self._saving = self._since, 0.0, 0.0, 0.0


class TimingFile:
    """Adds figures to the file `path`, a line each, with the hour; a line that a crash has cut short is taken away first.

    A disk that is full ends the file, not the run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        try:
            self._file = path.open("a+b", buffering=0)  # what the disk refuses does not come again
            self._file.seek(0)
            self._file.truncate(self._file.read().rfind(b"\n") + 1)
        except OSError as error:
            self._give_up(error)

    def write(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """Add the figures of `step`."""
        if self._file is None:
            return
        places = {"step": step, "images": images, "time": round(time.time(), 3)}
        lines = [json.dumps({**places, "name": name, "value": value}) + "\n" for name, value in values.items()]
        try:
            self._file.write("".join(lines).encode())
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _give_up(self, error: OSError) -> None:
        log.warning("%s: no more figures of speed: %s", self._path, error.strerror)
        self.close()


def timed(items: Iterable[T], tell: Callable[[float], None]) -> Iterator[T]:
    """Yield `items`, and tell of each how many seconds it was waited for."""
    iterator = iter(items)
    while True:
        begun = time.monotonic()
        try:
            item = next(iterator)
        except StopIteration:
            return
        tell(time.monotonic() - begun)
        yield item


def training_flops(model: AnySettings) -> float:
    """Return the floating-point operations of one image in training: forward, and backward, which costs twice that."""
    return float(PASSES * FLOPS_PER_MAC * cost(model).macs)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product in `dtype`: the fastest of what fits into 0.3 s, once a process.

    The numbers are random, for a GPU multiplies zeros faster; the global generator stays as it is.
    """
    return _matrix_rate(device, dtype, torch.get_num_threads())


@cache
def _matrix_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    del threads  # tells apart what was measured with another number
    side = SIDES.get(device.type, 4096)
    generator = torch.Generator(device).manual_seed(0)
    matrix = torch.randn(side, side, generator=generator, device=device).to(dtype)
    flops, best, begun = 2.0 * side**3, 0.0, time.monotonic()
    product = torch.mm(matrix, matrix)  # the first one chooses and loads its program
    _finish(device)
    slow = time.monotonic() - begun > MEASURE_SECONDS  # as bfloat16 is where the processor has no instructions for it
    begun, count = time.monotonic(), 1 if slow else max(1, round(BURST_FLOPS / flops))
    while not best or time.monotonic() - begun < MEASURE_SECONDS:
        _finish(device)
        start = time.monotonic()
        for _ in range(count):
            torch.mm(matrix, matrix, out=product)
        _finish(device)
        best = max(best, count * flops / (time.monotonic() - start))
    if device.type == "cuda":
        del matrix, product
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return best


def _finish(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that tensors on a GPU took so far, elsewhere the most that this process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
