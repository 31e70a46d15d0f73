"""Batches from a source: in the order that the seed and the step fix, from any number of worker processes, nothing dropped."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from vitlab.data.batch import Batch, collate
from vitlab.data.check import find_bad_images
from vitlab.data.image import Picture, decode
from vitlab.data.labels import Labels
from vitlab.data.limits import LIMITS, Limits
from vitlab.data.order import examples_at
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Example, Pixels, Source
from vitlab.data.transforms import Augment
from vitlab.data.workers import ahead, at
from vitlab.errors import BadImagesError, DataError, ImageError, SettingsError, VitlabError


def pixels_of(example: Example, limits: Limits = LIMITS) -> Pixels:
    """Return the pixels of an example (uint8 [h, w, 3]), decoding its file where it has one.

    Raises:
        ImageError: the file cannot be decoded, or must not be.
    """
    return decode(example.data, example.key, limits) if isinstance(example.data, bytes) else example.data


def _picture(example: Example, spec: ImageSpec) -> Picture:
    return spec.open(example.data, example.key) if isinstance(example.data, bytes) else example.data


class Share(NamedTuple):
    """Which rows of every batch a process makes: those of one rank among `world`."""

    rank: int = 0
    world: int = 1

    def rows(self, batch_size: int) -> range:
        """Return the rows of a batch of that size, over all ranks, that are this rank's."""
        each = batch_size // self.world
        return range(self.rank * each, (self.rank + 1) * each)


ALONE = Share()


def _check_share(share: Share, batch_size: int) -> None:
    if batch_size % share.world:
        what = f"{batch_size} cannot be divided among {share.world} processes"
        raise SettingsError("--batch-size", what, f"give a multiple of {share.world}")


class TrainBatches(Dataset[Batch | VitlabError]):
    """The training batches by step: batch k is a pure function of the source, the seed and k.

    `batch_size` counts the rows of all ranks; those of one rank are its `share`, so that any number of ranks together see
    the same batches.

    Raises:
        SettingsError: the ranks cannot divide a batch among them.
    """

    def __init__(
        self,
        source: Source,
        labels: Labels,
        spec: ImageSpec,
        augment: Augment,
        batch_size: int,
        seed: int,
        share: Share = ALONE,
    ) -> None:
        _check_share(share, batch_size)
        self.source, self.labels, self.spec, self.augment = source, labels, spec, augment
        self.batch_size, self.seed, self.share = batch_size, seed, share

    def __getitem__(self, step: int) -> Batch | VitlabError:
        """Return batch `step`, or the error of its first example that cannot be read or decoded."""
        rows = self.share.rows(self.batch_size)
        positions = np.arange(rows.start, rows.stop, dtype=np.int64) + step * self.batch_size
        chosen = examples_at(positions, len(self.source), self.seed)
        keys: list[str] = []

        def views() -> Iterator[Pixels]:
            for position, index in zip(positions.tolist(), chosen.tolist(), strict=True):
                at(index)
                example = self.source.read(index)
                rng = np.random.default_rng((self.seed, 1, position))
                yield self.augment.apply(_picture(example, self.spec), self.spec, rng)
                keys.append(example.key)
            at(-1)

        return _collated(views(), self.labels[chosen], keys, len(rows), self.spec)


class EvalBatches(Dataset[Batch | VitlabError]):
    """The evaluation batches in the order of the source; the last one is padded to the same shape, and says so.

    `batch_size` and `share` are as in `TrainBatches`: together the ranks see every example once.

    Raises:
        SettingsError: the ranks cannot divide a batch among them.
    """

    def __init__(self, source: Source, spec: ImageSpec, batch_size: int, share: Share = ALONE) -> None:
        _check_share(share, batch_size)
        self.source, self.spec, self.batch_size, self.share = source, spec, batch_size, share

    def __len__(self) -> int:
        return (len(self.source) + self.batch_size - 1) // self.batch_size

    def __getitem__(self, step: int) -> Batch | VitlabError:
        """Return batch `step`, or the error of its first example that cannot be read or decoded."""
        rows, start = self.share.rows(self.batch_size), step * self.batch_size
        first, last = (min(start + row, len(self.source)) for row in (rows.start, rows.stop))
        keys: list[str] = []

        def prepared() -> Iterator[Pixels]:
            for index in range(first, last):
                at(index)
                example = self.source.read(index)
                yield self.spec.prepare(_picture(example, self.spec))
                keys.append(example.key)
            at(-1)

        return _collated(prepared(), self.source.labels[first:last], keys, len(rows), self.spec)


def _collated(
    images: Iterator[Pixels], labels: Labels, keys: list[str], size: int, spec: ImageSpec
) -> Batch | VitlabError:
    """Return a batch of `images`, which fill `keys` as they are made, or the error of the first that cannot be."""
    try:
        return collate(images, labels, keys, size, (spec.height, spec.width))
    except VitlabError as error:  # as a value: raised in a worker it would lose its class
        return error


def load(batches: TrainBatches | EvalBatches, steps: Sequence[int], workers: int = 0) -> Iterator[Batch]:
    """Yield the batches of `steps` in order; `workers` processes read ahead, none means in this process.

    Raises:
        ImageError: an image cannot be decoded.
        DataError: the data cannot be read any more.
        WorkerError: a worker died, or hangs.
    """
    for batch in ahead(batches, steps, workers, batches.source):
        if isinstance(batch, VitlabError):
            raise batch
        yield batch


LOOKED_THROUGH = 10_000
"""Up to so many images are all decoded before a run, and when one is bad, so that one message names every one: it takes seconds."""


def bad_images_error(source: Source, first: ImageError, limits: Limits = LIMITS, workers: int = 0) -> DataError:
    """Return the error that names every image of `source` that cannot be decoded; of a large source the `first` alone."""
    if len(source) > LOOKED_THROUGH:
        return ImageError(first.where, first.what, f"{first.remedy}; vitlab data check names all such images")
    found = list(find_bad_images(source, workers, limits).values())
    return BadImagesError(str(source), found or [first], len(source))
