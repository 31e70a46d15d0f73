"""Digits: 1,797 real images that come with the package, so that everything runs without a download.

The data is the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49, licensed CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/); digits.LICENSE.txt beside it says what was changed.
"""

import io
from functools import cache, lru_cache
from importlib import resources
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitlab.config import Settings, parse
from vitlab.data.source import Example, Part, Pixels

_CLASSES = tuple("0123456789")


class Digits(Settings):
    """The 1,797 handwritten digits of 8×8 pixels, 174 to 183 of every class, in the order of the original file.

    `part` is one side of a split; None is the whole.
    """

    type: Literal["Digits"] = "Digits"
    part: Part | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names "0" to "9"."""
        return _CLASSES

    @property
    def labels(self) -> NDArray[np.int64]:
        """The digit that every image shows: int64 [len]."""
        return _arrays()[1][self._members()]

    def __len__(self) -> int:
        return len(self._members())

    def read(self, index: int) -> Example:
        """Return the digit at `index`: light grey on black, uint8 [8, 8, 3]; its key is its place in the whole."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self}: no example {index} of {len(self)}")
        images, labels = _arrays()
        place = int(self._members()[index])
        return Example(np.repeat(images[place, :, :, None], 3, axis=2), int(labels[place]), f"digits/{place:04d}")

    def split(self, test: float = 0.2, seed: int = 0) -> "tuple[Digits, Digits]":
        """Return the training and the test side; `test` is the fraction of every class in the test side.

        Raises:
            SettingsError: `test` is not between 0 and 1.
        """
        given = {"side": "test", "fraction": test, "seed": seed, "of": self.part}
        side = parse(Part, given, f"split of {self}")
        return Digits(part=side.model_copy(update={"side": "train"})), Digits(part=side)

    def _members(self) -> NDArray[np.int64]:
        part = self.part
        return _all() if part is None else _side(part)

    def __str__(self) -> str:
        return "digits" if self.part is None else f"digits, {self.part}"


@cache
def _arrays() -> tuple[Pixels, NDArray[np.int64]]:
    """Return the images scaled from 0..16 to 0..255, uint8 [1797, 8, 8], and their labels, int64 [1797]."""
    content = resources.files("vitlab.data").joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        images, labels = arrays["images"].astype(np.uint16), arrays["labels"].astype(np.int64)
    return ((images * 255 + 8) // 16).astype(np.uint8), labels  # + 8: rounded, in whole numbers


@cache
def _all() -> NDArray[np.int64]:
    return np.arange(len(_arrays()[1]))


@lru_cache(maxsize=16)
def _side(part: Part) -> NDArray[np.int64]:
    return part.indices(_arrays()[1])
