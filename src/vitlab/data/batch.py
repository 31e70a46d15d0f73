"""Batch: what travels from the data to a training or evaluation step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from vitlab.data.labels import NONE, stack
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
        """Return the batch on `device`."""
        return Batch(
            self.images.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.valid.to(device, non_blocking=True),
            self.keys,
        )


def collate(images: Sequence[Pixels], labels: Sequence[int | Sequence[int]], keys: Sequence[str], size: int) -> Batch:
    """Return a batch of `size` rows; rows beyond the given images are zero, with label 0 (or none of several), `valid` False."""
    height, width = images[0].shape[:2]
    pixels = np.zeros((size, height, width, 3), np.uint8)
    for row, image in enumerate(images):
        pixels[row] = image
    given = stack(labels)
    padded = np.full((size, *given.shape[1:]), NONE if given.ndim == 2 else 0, np.int64)
    padded[: len(given)] = given
    return Batch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(padded),
        torch.arange(size) < len(images),
        tuple(keys),
    )
