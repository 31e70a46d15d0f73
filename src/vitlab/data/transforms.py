"""Training crops and flips, each a pure function of an image, settings and a random generator."""

from typing import Annotated, Literal

from numpy.random import Generator
from pydantic import Field

from vitlab.config import Settings
from vitlab.data.erasing import Erasing
from vitlab.data.image import Picture
from vitlab.data.preprocess import ImageSpec
from vitlab.data.randaugment import RandAugment
from vitlab.data.resize import Box, resize
from vitlab.data.source import Pixels

ATTEMPTS = 100


class InceptionCrop(Settings):
    """A random part of the image with an area and an aspect ratio (width / height) in the given ranges, resized to the target."""

    type: Literal["InceptionCrop"] = "InceptionCrop"
    area: tuple[float, float] = (0.05, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


class ResizeCrop(Settings):
    """The whole image squashed to the target divided by `fraction`, then a random crop of the target (BiT: 448 → 384)."""

    type: Literal["ResizeCrop"] = "ResizeCrop"
    fraction: Annotated[float, Field(gt=0, le=1)] = 384 / 448


class NoCrop(Settings):
    """The evaluation transform itself."""

    type: Literal["NoCrop"] = "NoCrop"


class Augment(Settings):
    """What training does to an image: a random crop, and a horizontal flip half of the time.

    Turn the flip off where left and right mean something (digits, text). RandAugment and random erasing come after, where they are
    on; crop and flip are then the same as without them.
    """

    crop: Annotated[InceptionCrop | ResizeCrop | NoCrop, Field(discriminator="type")] = InceptionCrop()
    flip: bool = True
    randaugment: RandAugment | None = None
    erasing: Erasing | None = None

    def apply(self, image: Picture, spec: ImageSpec, rng: Generator) -> Pixels:
        """Return a random view of `image` (uint8 [h, w, 3], or a JPEG) at the size of `spec`."""
        rows, columns = image.shape[:2]
        match self.crop:
            case InceptionCrop(area=area, ratio=ratio):
                box = inception_box(rows, columns, area, ratio, rng)
            case ResizeCrop(fraction=fraction):
                box = _resize_crop_box(rows, columns, spec, fraction, rng)
            case NoCrop():
                box = spec.box(rows, columns)
        mirrored = self.flip and bool(rng.random() < 0.5)
        sooner = not isinstance(self.crop, NoCrop)
        view = resize(image, spec.height, spec.width, spec.interpolation, box, sooner=sooner, mirrored=mirrored)
        if self.randaugment is not None:
            view = self.randaugment.apply(view, rng)
        if self.erasing is not None:
            view = self.erasing.apply(view, rng)
        return view


def inception_box(
    rows: int, columns: int, area: tuple[float, float], ratio: tuple[float, float], rng: Generator
) -> Box:
    """Return a random box (left, top, right, bottom) as TensorFlow's `sample_distorted_bounding_box` draws it.

    The aspect ratio is uniform in its range, then the height uniform among the whole numbers that keep the area in its range;
    the whole image is returned when no draw of a hundred fits.
    """
    least, most = area[0] * rows * columns, area[1] * rows * columns
    for _ in range(ATTEMPTS):
        aspect = rng.uniform(*ratio)
        low, high = round((least / aspect) ** 0.5), round((most / aspect) ** 0.5)
        high = min(high, rows, int((columns + 0.5 - 1e-7) / aspect))
        low = min(low, high)
        height = int(rng.integers(low, high + 1))
        width = round(height * aspect)
        if height * width < least:
            height, width = height + 1, round((height + 1) * aspect)
        elif height * width > most:
            height, width = height - 1, round((height - 1) * aspect)
        if 0 < height <= rows and 0 < width <= columns and least <= height * width <= most:
            top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
            return Box(float(left), float(top), float(left + width), float(top + height))
    return Box(0.0, 0.0, float(columns), float(rows))


def _resize_crop_box(rows: int, columns: int, spec: ImageSpec, fraction: float, rng: Generator) -> Box:
    height, width = round(spec.height / fraction), round(spec.width / fraction)
    top, left = int(rng.integers(height - spec.height + 1)), int(rng.integers(width - spec.width + 1))
    down, across = rows / height, columns / width  # of the image that a pixel of the squashed whole covers
    return Box(left * across, top * down, (left + spec.width) * across, (top + spec.height) * down)
