"""Survey: the sizes, formats and class balance of one source, from the headers of its files; no image is decoded."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitlab.data.duplicates import DIGEST_BYTES, Digests, digest_of
from vitlab.data.folder import Folder
from vitlab.data.header import Header, read_header
from vitlab.data.labels import check_range, distinct
from vitlab.data.scan import key_of, scan
from vitlab.data.source import Example, Source
from vitlab.errors import ImageError

FEW = 10
"""A class with fewer images to train on is near-empty: hardly learned, and hardly tested by the tenth that is held back."""
_MOST_NAMED = 1000


class Spread(NamedTuple):
    """The smallest, the middle and the largest of some numbers."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Split:
    """What one split holds: images of each class, sizes (None where no file has a header), and what is special.

    Sizes are those of the upright image in pixels; the aspect ratio is width / height. `grey` images have one channel,
    `turned` ones an orientation tag that is not upright. `unknown` files have no header that can be read: the first
    thousand are named. `left_out` names the files that are no examples, and why.
    """

    source: str
    images: int
    counts: dict[str, int]
    sizes: dict[str, Spread] | None
    total_bytes: int
    formats: dict[str, int]
    grey: int
    turned: int
    unknown: int
    unknown_keys: list[str]
    left_out: dict[str, str]

    @property
    def imbalance(self) -> float:
        """Images of the largest class for each of the smallest that has any."""
        counts = [count for count in self.counts.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    @property
    def near_empty(self) -> dict[str, int]:
        """The classes with fewer than `FEW` images, smallest first."""
        few = {name: count for name, count in self.counts.items() if count < FEW}
        return dict(sorted(few.items(), key=lambda item: item[1]))


class _Look(NamedTuple):
    digest: bytes
    size: int
    header: Header | None


def survey(source: Source, workers: int, seen: Callable[[], None]) -> tuple[Split, Digests]:
    """Return what `source` holds and the digest of every example; it is read once, by `workers` processes.

    Raises:
        DataError: a label is the number of no class.
    """
    check_range(source.labels, source.classes, str(source))
    count = len(source)
    digests = np.zeros((count, DIGEST_BYTES), np.uint8)
    width, height = np.zeros(count, np.int32), np.zeros(count, np.int32)
    size = np.zeros(count, np.int64)
    formats: Counter[str] = Counter()
    grey = turned = 0
    for index, look in enumerate(scan(source, _look, workers)):
        if isinstance(look, _Look):
            digests[index] = np.frombuffer(look.digest, np.uint8)
            size[index] = look.size
            if look.header is not None:
                width[index], height[index] = look.header.width, look.header.height
                formats[look.header.format] += 1
                grey += look.header.grey
                turned += look.header.turned
        seen()
    known = width > 0
    unknown = np.flatnonzero(~known)
    split = Split(
        source=str(source),
        images=count,
        counts=count_classes(source.labels, source.classes),
        sizes=_sizes(width[known], height[known], size[known]) if known.any() else None,
        total_bytes=int(size.sum()),
        formats=dict(formats.most_common()),
        grey=grey,
        turned=turned,
        unknown=len(unknown),
        unknown_keys=[_key(source, int(index)) for index in unknown[:_MOST_NAMED]],
        left_out=source.listing.ignored if isinstance(source, Folder) else {},
    )
    return split, digests


def count_classes(labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, int]:
    """Return the examples of every class, names that repeat numbered; one of several labels counts for each of them."""
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    return {name: int(count) for name, count in zip(distinct(classes), counts, strict=True)}


def _look(example: Example) -> _Look:
    data = example.data
    return _Look(digest_of(example), len(data) if isinstance(data, bytes) else data.nbytes, read_header(example))


def _key(source: Source, index: int) -> str:
    try:
        return key_of(source, index)
    except ImageError as error:
        return error.where


def _sizes(width: NDArray[np.int32], height: NDArray[np.int32], size: NDArray[np.int64]) -> dict[str, Spread]:
    columns = {"width": width, "height": height, "aspect_ratio": width / height, "bytes": size}
    return {name: Spread(*(float(f(column)) for f in (np.min, np.median, np.max))) for name, column in columns.items()}
