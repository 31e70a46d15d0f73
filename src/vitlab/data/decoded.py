"""Decoded: a data set whose images are decoded once and kept as pixels, for several runs on the same images."""

from collections.abc import Iterator

import numpy as np

from vitlab.data.jpeg import Jpeg
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Example, Source, Subset
from vitlab.errors import ImageError

MOST_BYTES = 2 << 30
"""What the pixels of one data set may take: 700,000 images of 32×32, or 13,000 of 224×224."""


class Decoded(Subset):
    """All of a source, in its order, with the pixels of `examples` in memory. Worker processes are forked, and share them."""

    def __init__(self, source: Source, examples: list[Example]) -> None:
        super().__init__(source, np.arange(len(source)))
        self._examples = examples

    def read(self, index: int) -> Example:
        """Return the example at `index`."""
        return self._examples[index]

    def __str__(self) -> str:
        return str(self.source)


def decode_once(source: Source, spec: ImageSpec, most_bytes: int = MOST_BYTES) -> Source:
    """Return `source` with its images decoded as `spec` says, or `source` itself where that would not be the same or not fit.

    A JPEG stays as it is: of it only what a crop shows is decoded, at a lower scale where that is enough, so that pixels
    of all of it would be others than those that a run by itself sees. So do images in memory already, and a set with
    an image that cannot be decoded, which the run names.
    """
    examples: list[Example] = []
    room = most_bytes
    try:
        for example in _pixels(source, spec):
            if example is None:
                return source
            size = example.data.nbytes if isinstance(example.data, np.ndarray) else 0
            room -= size
            if room < 0 or (not examples and size * len(source) > most_bytes):
                return source
            examples.append(example)
    except ImageError:
        return source
    return Decoded(source, examples)


def _pixels(source: Source, spec: ImageSpec) -> Iterator[Example | None]:
    """Yield every example with its pixels, None for one that has to stay as it is."""
    for index in range(len(source)):
        example = source.read(index)
        picture = spec.open(example.data, example.key) if isinstance(example.data, bytes) else None
        yield None if picture is None or isinstance(picture, Jpeg) else Example(picture, example.label, example.key)
