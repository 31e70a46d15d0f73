"""Whether a run fits the memory: said before its first step, and explained when it does not."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import torch

from vitlab.config import parse
from vitlab.cost.available import available_memory
from vitlab.cost.memory import FLOAT, HALF, Memory, gigabytes, training_memory
from vitlab.data.batch import Batch
from vitlab.errors import NotEnoughMemoryError, SettingsError
from vitlab.models.classifier import AnySettings, build
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.studies.recipe import EXACT_PIECES, RunSettings
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import SGD
from vitlab.train.preparation import prepared
from vitlab.train.state import TrainState
from vitlab.train.step import train_step
from vitlab.train.tree import is_power_of_two

SPARE = 0.85
"""The share of the memory that a search leaves a step to fill: allocators lose some of it, and evaluation needs a little."""
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "could not create a memory")
"""What torch, its allocators and oneDNN say in a RuntimeError."""


def memory_of(settings: RunSettings) -> Memory:
    """Return what the run takes on its device, estimated."""
    train, model = settings.train, settings.model
    size = HALF if train.optimizer.moment_dtype == "bfloat16" else FLOAT
    match train.optimizer:
        case SGD():
            moments = size if train.optimizer.momentum else 0
        case _:
            moments = size + FLOAT
    return training_memory(
        model,
        train.batch_size // train.pieces,
        moments=moments + (FLOAT if train.average else 0),  # the averaged weights lie beside the moments
        sums=1 + (math.ceil(math.log2(train.pieces)) if train.exact else 0),
        half=train.precision == "bfloat16",
        remat=train.remat,
        on_host=torch.device(settings.device).type == "cpu",
    )


def memory_lines(settings: RunSettings) -> list[str]:
    """Return what to say about memory before the first step: the estimate, and what to change where it is more than there is."""
    needed, there = memory_of(settings), available_memory(torch.device(settings.device))
    if there is None:
        return [f"about {needed}"]
    line = f"about {gigabytes(needed.total)} of {gigabytes(there)}: {needed.parts}"
    if needed.total <= there:
        return [line]
    return [line, "more than there is; it may end for want of memory. Less is needed with", *remedies(settings)]


def remedies(settings: RunSettings) -> list[str]:
    """Return flags under which the run takes less memory, and how much it then takes."""
    return [f"{flag}: about {gigabytes(memory_of(changed).total)}" for flag, changed in _smaller(settings)]


def _smaller(settings: RunSettings) -> Iterator[tuple[str, RunSettings]]:
    """Yield flags and the settings that they make."""

    def training(**changes: object) -> RunSettings:
        return settings.model_copy(update={"train": settings.train.model_copy(update=changes)})

    train, fits = settings.train, _fits_estimate(settings, torch.device(settings.device))
    piece = train.batch_size // train.pieces
    smaller = [size for size in range(1, piece // 2 + 1) if train.batch_size % size == 0]
    if smaller:
        size = largest(smaller, fits) or 1
        yield f"--set train.micro_batch_size={size}", training(micro_batch_size=size)
    if not train.remat:
        yield "--remat", training(remat=True)
    if train.precision == "float32":
        yield "--precision bfloat16", training(precision="bfloat16")
    resized = _half_size(settings.model)
    if resized is not None:
        height, width = resized.image_size
        flag = f"--image-size {height}" if height == width else f"--image-size {height}x{width}"
        yield flag, settings.model_copy(update={"model": resized})


def _half_size(model: AnySettings) -> AnySettings | None:
    """Return the model for images of about half the side, in whole patches; None where it has no such form."""
    cell = Size(32, 32) if isinstance(model, ResNetSettings) else model.stem.cell
    sides = (max(1, side // 2 // one) * one for side, one in zip(model.image_size, cell, strict=True))
    try:
        resized = parse(type(model), dict(model) | {"image_size": Size(*sides)}, "--image-size")
    except SettingsError:
        return None
    return resized if min(resized.image_size) < min(model.image_size) else None


@contextmanager
def explained(settings: RunSettings) -> Generator[None]:
    """Turn a failure for want of memory inside into one error that says what to change.

    Raises:
        NotEnoughMemoryError: the memory ran out.
    """
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # here, where the failed step's tensors are no longer held by the error
    train, model = settings.train, settings.model
    piece = train.batch_size // train.pieces
    what = (
        f"out of memory on {settings.device} with {piece} images at a time of {model.image_size} pixels "
        f"({model.describe()}); it was estimated to take {memory_of(settings)}"
    )
    raise NotEnoughMemoryError("training", what, "start a new run with one of", remedies(settings)) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def largest_micro_batch(settings: RunSettings, world: int = 1) -> int:
    """Return the largest piece of the batch that fits the memory, of which each of `world` processes gets as many.

    On a GPU steps of growing pieces are made until one fails; on a CPU, where a failure may end other programs, it goes by the
    estimate. What is found belongs in the settings: a run does not search again when it is resumed.

    Raises:
        NotEnoughMemoryError: not even one image at a time fits.
    """
    device, whole = torch.device(settings.device), settings.train.batch_size
    divisors = [size for size in range(1, whole + 1) if whole % size == 0 and whole // size % world == 0]
    fewest = min(EXACT_PIECES, whole & -whole)  # as `micro_batch_for` makes them for an exact run
    exact = [size for size in divisors if is_power_of_two(whole // size) and whole // size >= fewest]
    sizes = exact if settings.train.exact else divisors
    found = largest(sizes, _fits_gpu(settings, device) if device.type == "cuda" else _fits_estimate(settings, device))
    if found is None:
        what = f"not even one image at a time fits; it would take {memory_of(_in_pieces(settings, 1))}"
        raise NotEnoughMemoryError("--batch-size auto", what, "use one of", remedies(_in_pieces(settings, 1)))
    return found


def largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Return the largest of ascending `sizes` that fits, None when none does, trying few and none far above what fits."""
    low, high = -1, 0  # what is known to fit, and what is tried next
    while high < len(sizes) and fits(sizes[high]):
        low = high
        limit = 2 * sizes[low]
        high = max(low + 1, sum(size <= limit for size in sizes) - 1)
    high = min(high, len(sizes))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low] if low >= 0 else None


def _in_pieces(settings: RunSettings, size: int) -> RunSettings:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"micro_batch_size": size})})


def _fits_estimate(settings: RunSettings, device: torch.device) -> Callable[[int], bool]:
    there = available_memory(device)
    return lambda size: there is None or memory_of(_in_pieces(settings, size)).total <= SPARE * there


def _fits_gpu(settings: RunSettings, device: torch.device) -> Callable[[int], bool]:
    """Return what tries two steps with so many images, of a model of its own that is gone afterwards."""
    limit = SPARE * torch.cuda.mem_get_info(device)[1]
    plain = {"micro_batch_size": None, "exact": False, "parallel": "data", "compile": False}

    def fits(size: int) -> bool:
        training = settings.train.model_copy(update={**plain, "batch_size": size})
        torch.cuda.reset_peak_memory_stats(device)
        done = fits_gpu(lambda: _try_steps(settings.model, training, device))
        return done and torch.cuda.max_memory_reserved(device) <= limit

    return fits


def fits_gpu(work: Callable[[], object]) -> bool:
    """Return whether `work` is done on a GPU before the memory there ends; what it took is given back."""
    try:
        work()
        torch.cuda.synchronize()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _try_steps(model: AnySettings, settings: TrainSettings, device: torch.device) -> None:
    """Make two updates, of which the second has all that an optimizer keeps."""
    state = TrainState.start(build(model).to(device), settings)
    size, (height, width) = settings.batch_size, model.image_size
    images = torch.zeros(size, 3, height, width, dtype=torch.uint8)
    batch = Batch(images, torch.zeros(size, dtype=torch.int64), torch.ones(size, dtype=torch.bool), ("",) * size)
    with prepared(state.model, settings):
        for _ in range(2):
            state.step = 0
            train_step(state, [batch], settings).read(state)
