"""Random erasing (Zhong et al. 2020): a rectangle of the view is replaced by noise."""

from typing import Annotated

import numpy as np
from numpy.random import Generator
from pydantic import Field, model_validator

from vitlab.config import Settings
from vitlab.data.source import Pixels

ATTEMPTS = 100

Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=0)]


class Erasing(Settings):
    """With `probability`, a rectangle with an area (share of the view) and a ratio (height / width) in the given ranges is filled
    with random values, one for each pixel and channel.

    The defaults are the paper's (section 4.2), which found random values best, before the mean and zeros. DeiT uses a probability
    of 0.25 and areas up to a third.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    area: tuple[Share, Share] = (0.02, 0.4)
    ratio: tuple[Ratio, Ratio] = (0.3, 1 / 0.3)

    @model_validator(mode="after")
    def _ordered(self) -> "Erasing":
        for name, (low, high) in (("area", self.area), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name} from {low:g} to {high:g} is no range; use {name} [{high:g}, {low:g}]")
        return self

    def apply(self, view: Pixels, rng: Generator) -> Pixels:
        """Return `view` (uint8 [h, w, 3]), or a copy of it with a rectangle that `rng` draws erased.

        Rectangles are drawn until one fits, a hundred at most; the view is left as it is if none does.
        """
        if rng.random() >= self.probability:
            return view
        rows, columns = view.shape[:2]
        for _ in range(ATTEMPTS):
            pixels, ratio = rng.uniform(*self.area) * rows * columns, rng.uniform(*self.ratio)
            height, width = round((pixels * ratio) ** 0.5), round((pixels / ratio) ** 0.5)
            if 0 < height <= rows and 0 < width <= columns:
                top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
                erased = view.copy()
                noise = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
                erased[top : top + height, left : left + width] = noise
                return erased
        return view
