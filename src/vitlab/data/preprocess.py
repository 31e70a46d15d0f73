"""ImageSpec: the exact evaluation transform that a model was trained for; it travels with the weights."""

from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from vitlab.config import Settings
from vitlab.data.source import Pixels

Interpolation = Literal["bilinear", "bicubic"]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


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
    origin carry their own. Orientation tags of a file are always honoured when it is decoded.
    """

    height: PositiveInt = 224
    width: PositiveInt = 224
    fit: Annotated[Squash | CentralCrop, Field(discriminator="type")] = Squash()
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5)

    def prepare(self, image: Pixels) -> Pixels:
        """Return `image` (uint8 [h, w, 3]) fitted to the target: uint8 [height, width, 3]."""
        match self.fit:
            case Squash():
                return resize(image, self.height, self.width, self.interpolation)
            case CentralCrop(fraction=fraction):
                box = _central_box(image.shape[0], image.shape[1], self.height, self.width, fraction)
                return resize(image, self.height, self.width, self.interpolation, box)

    def normalise(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return pixel values 0–255 as floats in the model's range, on the device where `images` are."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1) * 255
        return (images.float() - mean) / std


Box = tuple[float, float, float, float]


def resize(image: Pixels, height: int, width: int, interpolation: Interpolation, box: Box | None = None) -> Pixels:
    """Return the part of `image` in `box` (left, top, right, bottom, in pixels; all when None) resized with antialiasing."""
    if box is None and image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), RESAMPLING[interpolation], box=box))


def _central_box(rows: int, columns: int, height: int, width: int, fraction: float) -> Box:
    """Return the box that resizing by one factor and cropping the middle would show."""
    scale = min(rows / height, columns / width) * fraction
    box_height, box_width = height * scale, width * scale
    left, top = (columns - box_width) / 2, (rows - box_height) / 2
    return left, top, left + box_width, top + box_height
