"""Batch: what travels from the data to a training or evaluation step."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from vitlab.data.labels import NONE, Labels, stack
from vitlab.data.source import Pixels


@dataclass(frozen=True)
class Batch:
    """Images as uint8 (normalised on the device), labels, and which rows are real: evaluation pads its last batch.

    Labels are [b], or of data with several labels an image [b, m], rows padded with -1.
    """

    images: UInt8[Tensor, "b c h w"]
    labels: Int64[Tensor, "b *m"]
    valid: Bool[Tensor, " b"]
    keys: tuple[str, ...]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`; what is sent to a GPU is on its way when this returns."""
        return Batch(_sent(self.images, device), _sent(self.labels, device), _sent(self.valid, device), self.keys)

    def pieces(self, count: int) -> "Iterator[Batch]":
        """Yield the batch in `count` parts of one size, in order."""
        size = len(self.valid) // count
        for start in range(0, size * count, size):
            rows = slice(start, start + size)
            yield Batch(self.images[rows], self.labels[rows], self.valid[rows], self.keys[rows])


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`: from memory that may be swapped out a GPU takes it only after all work before."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def collate(
    images: Iterable[Pixels],
    labels: Labels | Sequence[int | Sequence[int]],
    keys: Sequence[str],
    size: int,
    shape: tuple[int, int] | None = None,
) -> Batch:
    """Return a batch of `size` rows; rows beyond the given images are zero, with label 0 (or none of several) and `valid` False.

    Images are taken one by one and copied at once, so that each may use the memory of the one before. `shape` is their height and
    width, and may be left out where they are a sequence of one or more.
    """
    height, width = shape or next(iter(images)).shape[:2]
    pixels, count = np.zeros((size, 3, height, width), np.uint8), 0
    for image in images:
        pixels[count] = image.transpose(2, 0, 1)
        count += 1
    given = labels if isinstance(labels, np.ndarray) else stack(labels)
    padded = np.full((size, *given.shape[1:]), NONE if given.ndim == 2 else 0, np.int64)
    padded[: len(given)] = given
    return Batch(
        torch.from_numpy(pixels),
        torch.from_numpy(padded),
        torch.arange(size) < count,
        tuple(keys),
    )
