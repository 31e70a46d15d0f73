"""One pass of a model over a source; the features it gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.loader import EvalBatches, bad_images_error, load
from vitlab.data.source import Source
from vitlab.errors import DataError, ImageError
from vitlab.models.classifier import Classifier
from vitlab.ranks import ALONE, Ranks

Seen = Callable[[int, int], None]
"""What is told after every batch how many examples of how many are done."""


@dataclass(frozen=True)
class Labelled:
    """Features and what they are of: `values` float32 [n, r], `labels` int64 [n]."""

    values: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Return some of the rows, copied."""
        return Labelled(self.values[rows], self.labels[rows])


def map_source(
    model: Classifier,
    source: Source,
    compute: Callable[[Tensor], Tensor],
    batch_size: int = 64,
    workers: int = 0,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, tuple[str, ...]]:
    """Return `compute` of every example's normalised image [b, 3, h, w], one row each in order, and the examples' names.

    Every batch has the same shape (the last one is padded and cut), so that an example's numbers do not depend on its place. The
    `ranks` share the batches, and each gets all that came out, which is in memory once.

    Raises:
        BadImagesError: some images cannot be decoded; each is named.
    """
    batches = EvalBatches(source, model.image_spec, batch_size, ranks)
    out, done = torch.empty(0), 0
    keys: list[str] = []
    for rows, names in _each_batch(model, batches, compute, workers):
        if not done:
            out = torch.empty(len(source), *rows.shape[1:])
        out[done : done + len(rows)] = rows
        done += len(rows)
        keys += names
    return out, _in_order(batches, keys)


def stream(model: Classifier, source: Source, batch_size: int = 64, workers: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield the features of the examples of `source` in order, a batch at a time: float32 [b, r].

    Raises:
        BadImagesError: some images cannot be decoded; each is named.
        DataError: the features of an example are not finite; it is named.
    """
    batches = EvalBatches(source, model.image_spec, batch_size)
    for rows, keys in _each_batch(model, batches, model.features, workers):
        values = rows.numpy()
        if not np.isfinite(values).all():
            key = keys[int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])]
            what = f"has features that are not finite in this model (of {source})"
            raise DataError(key, what, "the numbers overflow: check the weights")
        yield values


def extract(
    model: Classifier, source: Source, batch_size: int = 64, workers: int = 0, seen: Seen = lambda _, __: None
) -> NDArray[np.float32]:
    """Return the features of every example of `source` in order: float32 [n, r], in memory once.

    Raises:
        BadImagesError: some images cannot be decoded; each is named.
        DataError: the features of an example are not finite; it is named.
    """
    out, done = np.empty((0, 0), np.float32), 0
    for values in stream(model, source, batch_size, workers):
        if not done:
            out = np.empty((len(source), values.shape[1]), np.float32)
        out[done : done + len(values)] = values
        done += len(values)
        seen(done, len(source))
    return out


def _each_batch(
    model: Classifier, batches: EvalBatches, compute: Callable[[Tensor], Tensor], workers: int
) -> Iterator[tuple[Tensor, tuple[str, ...]]]:
    """Yield `compute` of every batch, the real rows of all ranks in order, and the names of those of this one."""
    model.eval()
    device, ranks = next(model.parameters()).device, batches.ranks
    try:
        for batch in load(batches, range(len(batches)), workers):
            with torch.inference_mode():
                values = compute(model.image_spec.normalise(batch.images.to(device))).float().cpu()
            yield ranks.rows(values)[ranks.rows(batch.valid)], batch.keys
    except ImageError as error:
        raise bad_images_error(batches.source, error, model.image_spec.limits, workers) from error


def _in_order(batches: EvalBatches, keys: list[str]) -> tuple[str, ...]:
    """Return the names of all examples in the order of the source, from those that each rank read."""
    parts = [iter(part) for part in batches.ranks.words(keys)]
    return tuple(
        key
        for number in range(len(batches))
        for rank, part in enumerate(parts)
        for key in islice(part, len(batches.rows(number, rank)))
    )
