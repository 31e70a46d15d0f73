"""Batches from a source: in the order that the seed and the step fix, from any number of worker processes, nothing dropped."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from vitlab.data.batch import Batch, collate
from vitlab.data.check import find_bad_images
from vitlab.data.image import decode
from vitlab.data.order import examples_at
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Example, Pixels, Source
from vitlab.data.transforms import Augment
from vitlab.errors import BadImagesError, ImageError

Labels = NDArray[np.int64]
Item = TypeVar("Item")


def pixels_of(example: Example) -> Pixels:
    """Return the pixels of an example (uint8 [h, w, 3]), decoding its file where it has one.

    Raises:
        ImageError: the file cannot be decoded, or must not be.
    """
    return decode(example.data, example.key) if isinstance(example.data, bytes) else example.data


class TrainBatches(Dataset[Batch | ImageError]):
    """The training batches by step: batch k is a pure function of the source, the seed and k."""

    def __init__(
        self, source: Source, labels: Labels, spec: ImageSpec, augment: Augment, batch_size: int, seed: int
    ) -> None:
        self.source, self.labels, self.spec, self.augment = source, labels, spec, augment
        self.batch_size, self.seed = batch_size, seed

    def __getitem__(self, step: int) -> Batch | ImageError:
        """Return batch `step`, or the error of its first image that cannot be decoded."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)
        chosen = examples_at(positions, len(self.source), self.seed)
        images: list[Pixels] = []
        keys: list[str] = []
        for position, index in zip(positions, chosen, strict=True):
            try:
                example = self.source.read(int(index))
                image = pixels_of(example)
            except ImageError as error:
                return error
            rng = np.random.default_rng((self.seed, 1, int(position)))
            images.append(self.augment.apply(image, self.spec, rng))
            keys.append(example.key)
        return collate(images, self.labels[chosen].tolist(), keys, self.batch_size)


class EvalBatches(Dataset[Batch | ImageError]):
    """The evaluation batches in the order of the source; the last one is padded to the same shape, and says so."""

    def __init__(self, source: Source, spec: ImageSpec, batch_size: int) -> None:
        self.source, self.spec, self.batch_size = source, spec, batch_size

    def __len__(self) -> int:
        return (len(self.source) + self.batch_size - 1) // self.batch_size

    def __getitem__(self, step: int) -> Batch | ImageError:
        """Return batch `step`, or the error of its first image that cannot be decoded."""
        chosen = range(step * self.batch_size, min((step + 1) * self.batch_size, len(self.source)))
        try:
            examples = [self.source.read(index) for index in chosen]
            images = [self.spec.prepare(pixels_of(example)) for example in examples]
        except ImageError as error:
            return error
        keys = [example.key for example in examples]
        return collate(images, [example.label for example in examples], keys, self.batch_size)


def load(batches: TrainBatches | EvalBatches, steps: Sequence[int], workers: int = 0) -> Iterator[Batch]:
    """Yield the batches of `steps` in order; `workers` processes read ahead, none means in this process.

    Raises:
        ImageError: an image cannot be decoded.
    """
    for batch in _loader(batches, steps, workers):
        if isinstance(batch, ImageError):
            raise batch
        yield batch


def _loader(items: Dataset[Item], places: Sequence[int], workers: int) -> Iterable[Item]:
    """Return the items at `places` in order, read ahead by `workers` processes."""
    return DataLoader(
        items,
        batch_size=None,
        sampler=places,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),  # the loader draws a seed; ours must not come from the global stream
        worker_init_fn=_leave_interrupts_to_the_parent,
    )


def _leave_interrupts_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; a worker that ended by it would take the run down before it could save.

    So does the SIGTERM of a machine that is shut down. A worker ends when its parent does.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def bad_images_error(source: Source) -> BadImagesError:
    """Return the error that names every image of `source` that cannot be decoded."""
    return BadImagesError(str(source), list(find_bad_images(source).values()), len(source))
