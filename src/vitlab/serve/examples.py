"""Examples: a few images to try a model on, chosen when the server starts; a request names one by its number."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitlab.data.digits import Digits
from vitlab.data.fractals import Fractals
from vitlab.data.image import decode
from vitlab.data.labels import Label
from vitlab.data.source import Pixels, Source
from vitlab.errors import DataError, ImageError

COUNT = 12
MAX_SIDE = 512
"""Larger images are shrunk to so many pixels: an example is to be small, and the same whoever asks for it."""
SMALL_PIXELS = 64 * 64
"""Up to so many pixels an example is kept exactly, as PNG; others become JPEG."""


@dataclass(frozen=True)
class Sample:
    """One image to try: the bytes of a PNG or JPEG, and the name of what is on it, empty where that is unknown."""

    data: bytes
    kind: str
    label: str


def choose(source: Source | None, count: int = COUNT) -> tuple[Sample, ...]:
    """Return up to `count` examples of `source`, class by class in turn; generated ones where there is none that can be read."""
    found = () if source is None else tuple(_some(source, count))
    return found or (*_some(Digits(), count // 2), *_some(Fractals(image_size=64, num_classes=24), count - count // 2))


def _some(source: Source, count: int) -> Iterator[Sample]:
    """Yield examples of as many classes as there are; what cannot be read is passed over."""
    made = 0
    for index in _spread(source, 2 * count):
        try:
            example = source.read(index)
            pixels = example.data if isinstance(example.data, np.ndarray) else decode(example.data, example.key)
        except (DataError, ImageError, OSError):
            continue
        yield _sample(pixels, _named(example.label, source.classes))
        made += 1
        if made == count:
            return


def _spread(source: Source, count: int) -> list[int]:
    """Return the indices of examples of classes far apart: of each such class one, then a second of each, and so on."""
    labels = source.labels if source.labels.ndim == 1 else source.labels[:, 0]
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    members = np.split(order, starts[1:])
    chosen = (
        np.unique(np.linspace(0, len(names) - 1, min(count // 2, len(names))).round().astype(int)) if len(names) else []
    )
    turns = range(-(-count // max(1, len(chosen))))
    picked = [int(members[each][turn]) for turn in turns for each in chosen if turn < len(members[each])]
    return picked[:count]


def _named(label: Label, classes: tuple[str, ...]) -> str:
    labels = label if isinstance(label, tuple) else (label,)
    return ", ".join(classes[each] for each in labels if 0 <= each < len(classes))


def _sample(pixels: Pixels, label: str) -> Sample:
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    if image.width * image.height <= SMALL_PIXELS:
        image.save(buffer, "PNG")
        return Sample(buffer.getvalue(), "image/png", label)
    image.save(buffer, "JPEG", quality=90)
    return Sample(buffer.getvalue(), "image/jpeg", label)
