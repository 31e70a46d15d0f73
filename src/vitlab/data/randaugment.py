"""RandAugment (Cubuk et al. 2020): a few operations drawn at random, all at one magnitude, on a view that training has cut."""

from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageOps
from pydantic import Field

from vitlab.config import Settings
from vitlab.data.source import Pixels

FILL = (128, 128, 128)
"""What an operation shows where it has no pixel: of medium value, because later operations look at what values there are."""
UNIT = 10.0
"""The magnitude at which the ranges below are those of the paper."""
DESIGNED = 224.0
"""The side that lengths in pixels are meant for; at another they are the same share of the side."""

Operation = Callable[[Image.Image, float, Generator], Image.Image]
"""(view, magnitude / 10, random generator) → view."""
Enhancer = ImageEnhance.Color | ImageEnhance.Contrast | ImageEnhance.Brightness | ImageEnhance.Sharpness


class RandAugment(Settings):
    """`num_ops` operations, drawn one by one from sixteen, at the given `magnitude`.

    Operations and strengths are those of the code that AugReg (Steiner et al. 2022) was trained with (big_vision,
    `pp/autoaugment.py`): the paper's without the identity, and Invert, Cutout and SolarizeAdd. AugReg's levels are (2, 0) "light1",
    (2, 10) "light2", (2, 15) "medium" and (2, 20) "strong". At 0 not everything rests: Solarize inverts then, Posterize keeps one
    bit, and at 20 both do nothing. Color, Contrast, Brightness and Sharpness grow with the magnitude from a tenth of what an image
    has to more than that; they rest at 5.

    Lengths are meant for 224 pixels there (100 to move by, 40 for half of the cutout, at magnitude 10) and are the same share of
    the side here.
    """

    num_ops: Annotated[int, Field(ge=1, le=16)] = 2
    magnitude: Annotated[float, Field(ge=0, le=30)] = 10.0

    def apply(self, view: Pixels, rng: Generator) -> Pixels:
        """Return `view` (uint8 [h, w, 3]) after the operations that `rng` draws."""
        image = Image.fromarray(np.ascontiguousarray(view))
        for choice in rng.integers(len(OPERATIONS), size=self.num_ops):
            image = _IN_ORDER[choice](image, self.magnitude / UNIT, rng)
        return np.array(image)


def _sign(rng: Generator) -> float:
    return -1.0 if rng.random() < 0.5 else 1.0


def _bits(level: float) -> int:
    return min(8, max(1, int(level * 4)))  # one bit is left of the 0 that a magnitude below 2.5 means


def _rotate(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return image.rotate(30 * level * _sign(rng), Image.Resampling.NEAREST, fillcolor=FILL)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Return the image whose pixel at (x, y) is that of `image` at (a·x + b·y + c, d·x + e·y + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=FILL)


def _shear_x(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return _affine(image, (1, 0.3 * level * _sign(rng), 0, 0, 1, 0))


def _shear_y(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, 0.3 * level * _sign(rng), 1, 0))


def _translate_x(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return _affine(image, (1, 0, 100 * level * _sign(rng) * image.width / DESIGNED, 0, 1, 0))


def _translate_y(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, 100 * level * _sign(rng) * image.height / DESIGNED))


def _solarize_add(image: Image.Image, level: float, _: Generator) -> Image.Image:
    """Make the darker half of the values brighter."""
    addition = int(110 * level)
    return image.point([min(value + addition, 255) if value < 128 else value for value in range(256)] * 3)


def _cutout(image: Image.Image, level: float, rng: Generator) -> Image.Image:
    """Cover a rectangle around a random pixel; what lies outside the image covers nothing."""
    across, down = (int(40 * level * side / DESIGNED) for side in image.size)
    column, row = int(rng.integers(image.width)), int(rng.integers(image.height))
    covered = image.copy()
    covered.paste(FILL, (max(0, column - across), max(0, row - down), column + across, row + down))
    return covered


def _plain(change: Callable[[Image.Image], Image.Image]) -> Operation:
    return lambda image, _, __: change(image)


def _enhance(kind: Callable[[Image.Image], Enhancer]) -> Operation:
    return lambda image, level, _: kind(image).enhance(1.8 * level + 0.1)


OPERATIONS: Mapping[str, Operation] = {
    "AutoContrast": _plain(ImageOps.autocontrast),
    "Equalize": _plain(ImageOps.equalize),
    "Invert": _plain(ImageOps.invert),
    "Rotate": _rotate,
    "Posterize": lambda image, level, _: ImageOps.posterize(image, _bits(level)),
    "Solarize": lambda image, level, _: ImageOps.solarize(image, int(256 * level)),
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Cutout": _cutout,
    "SolarizeAdd": _solarize_add,
}
"""The operations by the names of the paper, in the order that draws count them in."""
_IN_ORDER = tuple(OPERATIONS.values())
