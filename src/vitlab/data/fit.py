"""Fit: which part of an image a model sees."""

from typing import Annotated, Literal

from pydantic import Field

from vitlab.config import Settings
from vitlab.data.resize import Box


class Squash(Settings):
    """Resize the whole image to the target, whatever its aspect ratio (the paper's fine-tuning evaluation)."""

    type: Literal["Squash"] = "Squash"


class CentralCrop(Settings):
    """Resize so that the target is `fraction` of the shorter side, then cut the middle (0.875: 256 → 224)."""

    type: Literal["CentralCrop"] = "CentralCrop"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.875


Fit = Annotated[Squash | CentralCrop, Field(discriminator="type")]


def box_of(fit: Squash | CentralCrop, size: tuple[int, int], target: tuple[int, int]) -> Box | None:
    """Return the part of an image of `size` (height, width) that a model of `target` size sees; None for all of it."""
    match fit:
        case Squash():
            return None
        case CentralCrop(fraction=fraction):
            return _central_box(*size, *target, fraction)


def _central_box(rows: int, columns: int, height: int, width: int, fraction: float) -> Box:
    """Return the box that resizing to whole pixels and cutting out the middle ones would show, as torchvision and timm do.

    The side that limits is resized to `resized_edge`, the other in proportion, rounded down; then the target is cut from the
    middle, at a whole pixel.
    """
    edges = resized_edge(height, fraction), resized_edge(width, fraction)
    if rows * edges[1] <= columns * edges[0]:
        resized_rows, resized_columns = edges[0], edges[0] * columns // rows
    else:
        resized_rows, resized_columns = edges[1] * rows // columns, edges[1]
    down, across = rows / resized_rows, columns / resized_columns  # of the image that a pixel of the resized one covers
    top, left = round((resized_rows - height) / 2), round((resized_columns - width) / 2)
    return Box(left * across, top * down, (left + width) * across, (top + height) * down)


def resized_edge(size: int, fraction: float) -> int:
    """Return the whole number of pixels that a side is resized to before `size` of them are cut out of its middle."""
    return int(size / fraction + 1e-6)  # 224 / (224 / 242) is a little less than 242
