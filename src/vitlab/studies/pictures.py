"""Pictures: small labelled images made from the digits in the program, to ask of a model what the digits alone do not."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitlab.config import Settings, to_json
from vitlab.data.digits import Digits
from vitlab.data.source import Example, Part, Pixels, Source

Side = Literal["train", "test"]
DIGIT, CANVAS = 8, 16
"""Pixels a side, of a digit and of the canvas that one is put on."""
CELLS, TURNS, MOST = 5, 10, 5
"""Places along a side, directions, and digits on a canvas that are told apart."""
COUNT = {"train": 400, "test": 500}
"""Images of a task with answers of its own."""


@dataclass(frozen=True)
class Pictures:
    """A source in memory: `labels` [n] of `pixels` uint8 [n, h, w, 3]."""

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Example:
        """Return the image at `index`."""
        return Example(self.pixels[index], int(self.labels[index]), f"{self.name}/{index:04d}")

    def __str__(self) -> str:
        return self.name

    @property
    def digest(self) -> str:
        """The hash of all images and labels."""
        return hashlib.sha256(self.pixels.tobytes() + self.labels.tobytes()).hexdigest()


def identity(source: Source) -> Any:
    """Return what tells a source from all others, for the hash of what is measured on it."""
    if isinstance(source, Pictures):
        return source.digest
    return to_json(source) if isinstance(source, Settings) else str(source)


def place(digits: Pixels, rng: np.random.Generator) -> tuple[Pixels, int]:
    """Return a digit somewhere on a canvas, and in which cell of it."""
    row, column = rng.integers(0, CANVAS - DIGIT + 1, 2)
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    canvas[row : row + DIGIT, column : column + DIGIT] = digits[rng.integers(len(digits))]
    cell = np.array([row, column]) * CELLS // (CANVAS - DIGIT + 1)
    return canvas, int(cell[0] * CELLS + cell[1])


def turn(digits: Pixels, rng: np.random.Generator) -> tuple[Pixels, int]:
    """Return a digit in the middle of a canvas in some direction, and which one, counted from upright."""
    canvas, direction = np.zeros((CANVAS, CANVAS), np.uint8), int(rng.integers(TURNS))
    edge = (CANVAS - DIGIT) // 2
    canvas[edge:-edge, edge:-edge] = digits[rng.integers(len(digits))]
    return _rotated(canvas, direction * 360 / TURNS), direction


def scatter(digits: Pixels, rng: np.random.Generator) -> tuple[Pixels, int]:
    """Return some digits in different cells of a canvas of three by three, and how many there are, less one."""
    canvas, count = np.zeros((3, DIGIT, 3, DIGIT), np.uint8), int(rng.integers(1, MOST + 1))
    for cell in rng.permutation(9)[:count].tolist():
        canvas[cell // 3, :, cell % 3] = digits[rng.integers(len(digits))]
    return canvas.reshape(3 * DIGIT, 3 * DIGIT), count - 1


Draw = Callable[[Pixels, np.random.Generator], tuple[Pixels, int]]
STRUCTURED: Mapping[str, tuple[Draw, int]] = {
    "digit's place": (place, CELLS**2),
    "digit's direction": (turn, TURNS),
    "number of digits": (scatter, MOST),
}
"""Tasks of geometry, as VTAB's dSprites-location, dSprites-orientation and Clevr-count: how each is drawn, and its classes."""


@cache
def structured(task: str, side: Side) -> Pictures:
    """Return one side of a task of `STRUCTURED`, as many images of every class; no digit is on both sides."""
    draw, classes = STRUCTURED[task]
    source = Digits(part=Part(side=side, fraction=0.8))
    digits = np.stack([_read(source, index)[..., 0] for index in range(len(source))])
    rng, left = np.random.default_rng((len(task), len(source))), np.full(classes, COUNT[side] // classes)
    pixels, labels = list[Pixels](), list[int]()
    while left.any():
        drawn, label = draw(digits, rng)
        if left[label]:
            left[label] -= 1
            pixels.append(_coloured(drawn))
            labels.append(label)
    return Pictures(f"{task}, {side}", tuple(map(str, range(classes))), np.array(labels), np.stack(pixels))


def moved(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image at a random place of a canvas half as large again."""
    side = image.shape[0] * 3 // 2
    row, column = rng.integers(0, side - image.shape[0] + 1, 2)
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[row : row + image.shape[0], column : column + image.shape[1]] = image
    return canvas


def turned(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image turned by 20 to 45 degrees to either side."""
    return _coloured(_rotated(np.ascontiguousarray(image[..., 0]), float(rng.choice([-1, 1]) * rng.uniform(20, 45))))


def inverted(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image with dark and light exchanged."""
    del rng
    return 255 - image


def noisy(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image before a background of noise that is up to 60 % as light as it can be."""
    return np.maximum(image, rng.integers(0, 153, image.shape, np.uint8))


SHIFTS: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "moved": moved,
    "turned": turned,
    "inverted": inverted,
    "on noise": noisy,
}
"""What is done to images that a model is to know again."""


def shifted(source: Source, shift: str) -> Pictures:
    """Return the images of `source`, which are grey and square, with a change of `SHIFTS`."""
    rng = np.random.default_rng(0)
    pixels = np.stack([SHIFTS[shift](_read(source, index), rng) for index in range(len(source))])
    return Pictures(f"{source}, {shift}", source.classes, source.labels, pixels)


def _read(source: Source, index: int) -> Pixels:
    data = source.read(index).data
    assert not isinstance(data, bytes)  # digits have no files
    return data


def _coloured(grey: Pixels) -> Pixels:
    return np.repeat(grey[..., None], 3, axis=-1)


def _rotated(grey: Pixels, degrees: float) -> Pixels:
    return np.asarray(Image.fromarray(grey).rotate(degrees, Image.Resampling.BICUBIC))
