"""Mixup and CutMix: what a model sees of two images at once, and how much of each."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """Images [b, c, h, w], each with something of its partner: image `partner[i]` [b] has the share 1 - `share` of image i."""

    images: Float[Tensor, "b c h w"]
    partner: Int64[Tensor, " b"]
    share: float


def mix(images: Float[Tensor, "b c h w"], mixup: float, cutmix: float) -> Mixed:
    """Return `images` mixed with themselves in a random order, all by one share λ from Beta(α, α); everything is drawn anew.

    Mixup (Zhang et al. 2018) with α = `mixup` adds the images up, λ x + (1 - λ) x'. CutMix (Yun et al. 2019) with α = `cutmix` puts
    a rectangle of the partner into the image; its area is 1 - λ, less what would lie outside, and the share is what is really left.
    Where both are above zero, half of the pieces get one and half the other.

    big_vision takes the larger of λ and 1 - λ: with random partners that gives the same batches as often.
    """
    cut = cutmix > 0 and (mixup == 0 or bool(torch.rand(()) < 0.5))
    alpha = cutmix if cut else mixup
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    box = _box(share, images.shape[2], images.shape[3]) if cut else None
    partner = torch.randperm(images.shape[0], device=images.device)
    if box is None:
        return Mixed(share * images + (1 - share) * images[partner], partner, share)
    top, bottom, left, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return Mixed(mixed, partner, 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3]))


def _box(share: float, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Return a rectangle (top, bottom, left, right) of the image's shape around a random pixel, cut off at the borders."""
    side = (1 - share) ** 0.5
    down, across = int(rows * side) // 2, int(columns * side) // 2
    row, column = int(torch.randint(rows, ())), int(torch.randint(columns, ()))
    return max(0, row - down), min(rows, row + down), max(0, column - across), min(columns, column + across)
