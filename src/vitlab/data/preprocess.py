"""ImageSpec: the exact evaluation transform that a model was trained for; it travels with the weights."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from vitlab.config import Settings
from vitlab.data.image import Decoding, Picture, open_image
from vitlab.data.limits import LIMITS, Limits
from vitlab.data.resize import Box, Interpolation, resize
from vitlab.data.source import Pixels


class Squash(Settings):
    """Resize the whole image to the target, whatever its aspect ratio (the paper's fine-tuning evaluation)."""

    type: Literal["Squash"] = "Squash"


class CentralCrop(Settings):
    """Resize so that the target is `fraction` of the shorter side, then cut the middle (0.875: 256 → 224)."""

    type: Literal["CentralCrop"] = "CentralCrop"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.875


class ImageSpec(Settings):
    """How an image becomes a model's input: size, fit, interpolation (antialiased), and value range.

    `mean` and `std` are on the scale 0–1 and the defaults give the range [-1, 1] that every released ViT expects; models of other
    origin carry their own. `decoding` says what the pixels of a file are: as a viewer shows them, or, with "pil-compat", as
    Pillow alone gives them, to repeat accuracies that were published so. `limits` belong to whoever runs the model: they do
    not travel with it.
    """

    height: PositiveInt = 224
    width: PositiveInt = 224
    fit: Annotated[Squash | CentralCrop, Field(discriminator="type")] = Squash()
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5)
    decoding: Decoding = "standard"
    limits: Limits = LIMITS

    def open(self, data: bytes, name: str) -> Picture:
        """Return the image in the file `data`, from which `prepare` takes what the model sees.

        Raises:
            ImageError: the image cannot be decoded, or must not be.
        """
        return open_image(data, name, self.limits, self.decoding)

    def box(self, rows: int, columns: int) -> Box | None:
        """Return the part of an image of that size that the model sees; None for all of it."""
        match self.fit:
            case Squash():
                return None
            case CentralCrop(fraction=fraction):
                return _central_box(rows, columns, self.height, self.width, fraction)

    def prepare(self, image: Picture) -> Pixels:
        """Return `image` (uint8 [h, w, 3], or a JPEG) fitted to the target: uint8 [height, width, 3]."""
        return resize(image, self.height, self.width, self.interpolation, self.box(*image.shape[:2]))

    def normalise(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return pixel values 0–255 as floats in the model's range, on the device where `images` are."""
        return (images.float() - _channels(self.mean, images.device) * 255) / (_channels(self.std, images.device) * 255)


def _channels(values: Sequence[float], device: torch.device) -> Float[Tensor, "1 c 1 1"]:
    """Return a number a channel, made on the device: `torch.tensor` copies them there, and waits until all work before is done."""
    return torch.stack([torch.full((), value, device=device) for value in values]).view(1, -1, 1, 1)


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
