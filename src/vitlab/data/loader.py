"""Batches from a source: in the order that the seed and the step fix, from any number of worker processes, nothing dropped."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

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
from vitlab.errors import BadImagesError, DataError, ImageError, VitlabError
from vitlab.ranks import ALONE, Ranks


def pixels_of(example: Example, limits: Limits = LIMITS) -> Pixels:
    """Return the pixels of an example (uint8 [h, w, 3]), decoding its file where it has one.

    Raises:
        ImageError: the file cannot be decoded, or must not be.
    """
    return decode(example.data, example.key, limits) if isinstance(example.data, bytes) else example.data


def _picture(example: Example, spec: ImageSpec) -> Picture:
    return spec.open(example.data, example.key) if isinstance(example.data, bytes) else example.data


@dataclass(frozen=True)
class Pieces(Sequence[int]):
    """Which pieces of the batches from step `first` to `last` (excluded) are a rank's, in the order in which they are trained on.

    Piece q of the `in_step` of step s has the number s · in_step + q; a rank takes a run of them in every step.
    """

    first: int
    last: int
    in_step: int
    ranks: Ranks = ALONE

    def __len__(self) -> int:
        return max(0, self.last - self.first) * len(self.ranks.share(self.in_step))

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        own = self.ranks.share(self.in_step)
        step, place = divmod(index, len(own))
        return (self.first + step) * self.in_step + own[place]


class TrainBatches(Dataset[Batch | VitlabError]):
    """The training batches by number: batch k is a pure function of the source, the seed and k.

    They are the pieces that one update is made in, `Pieces` says whose: what is at any place in training follows from its number
    times `batch_size` alone, so that the same images are seen in the same order in pieces of any size, on any number of ranks.
    """

    def __init__(
        self, source: Source, labels: Labels, spec: ImageSpec, augment: Augment, batch_size: int, seed: int
    ) -> None:
        self.source, self.labels, self.spec, self.augment = source, labels, spec, augment
        self.batch_size, self.seed = batch_size, seed

    def __getitem__(self, number: int) -> Batch | VitlabError:
        """Return batch `number`, or the error of its first example that cannot be read or decoded."""
        positions = np.arange(self.batch_size, dtype=np.int64) + number * self.batch_size
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

        return _collated(views(), self.labels[chosen], keys, self.batch_size, self.spec)


class EvalBatches(Dataset[Batch | VitlabError]):
    """The evaluation batches in the order of the source; the last one is padded to the same shape, and says so.

    Batches of `batch_size` images go to the ranks in turn: together they see every example once, and all have as many batches.
    """

    def __init__(self, source: Source, spec: ImageSpec, batch_size: int, ranks: Ranks = ALONE) -> None:
        self.source, self.spec, self.batch_size, self.ranks = source, spec, batch_size, ranks

    def __len__(self) -> int:
        return math.ceil(len(self.source) / (self.batch_size * self.ranks.world))

    def rows(self, number: int, rank: int) -> range:
        """Return which examples are in batch `number` of `rank`: in the end there may be none."""
        start = (number * self.ranks.world + rank) * self.batch_size
        return range(min(start, len(self.source)), min(start + self.batch_size, len(self.source)))

    def __getitem__(self, number: int) -> Batch | VitlabError:
        """Return batch `number` of this rank, or the error of its first example that cannot be read or decoded."""
        rows = self.rows(number, self.ranks.rank)
        keys: list[str] = []

        def prepared() -> Iterator[Pixels]:
            for index in rows:
                at(index)
                example = self.source.read(index)
                yield self.spec.prepare(_picture(example, self.spec))
                keys.append(example.key)
            at(-1)

        return _collated(prepared(), self.source.labels[rows.start : rows.stop], keys, self.batch_size, self.spec)


def _collated(
    images: Iterator[Pixels], labels: Labels, keys: list[str], size: int, spec: ImageSpec
) -> Batch | VitlabError:
    """Return a batch of `images`, which fill `keys` as they are made, or the error of the first that cannot be."""
    try:
        return collate(images, labels, keys, size, (spec.height, spec.width))
    except VitlabError as error:  # as a value: raised in a worker it would lose its class
        return error


def load(batches: TrainBatches | EvalBatches, numbers: Sequence[int], workers: int = 0) -> Iterator[Batch]:
    """Yield the batches of those `numbers` in order; `workers` processes read ahead, none means in this process.

    Raises:
        ImageError: an image cannot be decoded.
        DataError: the data cannot be read any more.
        WorkerError: a worker died, or hangs.
    """
    for batch in ahead(batches, numbers, workers, batches.source):
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
