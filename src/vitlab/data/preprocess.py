"""ImageSpec: the exact evaluation transform that a model was trained for; it travels with the weights."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from vitlab.config import Settings
from vitlab.data.fit import CentralCrop as CentralCrop
from vitlab.data.fit import Fit, box_of
from vitlab.data.fit import Squash as Squash
from vitlab.data.image import Decoding, Picture, open_image
from vitlab.data.limits import LIMITS, Limits
from vitlab.data.resize import Box, Interpolation, resize
from vitlab.data.source import Pixels


class ImageSpec(Settings):
    """How an image becomes a model's input: size, fit, interpolation (antialiased), and value range.

    `mean` and `std` are on the scale 0–1 and the defaults give the range [-1, 1] that every released ViT expects; models of other
    origin carry their own. `decoding` says what the pixels of a file are: as a viewer shows them, or, with "pil-compat", as
    Pillow alone gives them, to repeat accuracies that were published so. `limits` belong to whoever runs the model: they do
    not travel with it.
    """

    height: PositiveInt = 224
    width: PositiveInt = 224
    fit: Fit = Squash()
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
        return box_of(self.fit, (rows, columns), (self.height, self.width))

    def prepare(self, image: Picture) -> Pixels:
        """Return `image` (uint8 [h, w, 3], or a JPEG) fitted to the target: uint8 [height, width, 3]."""
        return resize(image, self.height, self.width, self.interpolation, self.box(*image.shape[:2]))

    def normalise(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return pixel values 0–255 as floats in the model's range, on the device where `images` are."""
        return (images.float() - _channels(self.mean, images.device) * 255) / (_channels(self.std, images.device) * 255)


def _channels(values: Sequence[float], device: torch.device) -> Float[Tensor, "1 c 1 1"]:
    """Return a number a channel, made on the device: `torch.tensor` copies them there, and waits until all work before is done."""
    return torch.stack([torch.full((), value, device=device) for value in values]).view(1, -1, 1, 1)
