"""Check: can every image be used? Each is decoded once, by many processes; what fails is named with its reason."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from vitlab.data.duplicates import DIGEST_BYTES, Digests, Duplicates, digest_of, find_duplicates
from vitlab.data.image import decode
from vitlab.data.labels import check_range
from vitlab.data.limits import LIMITS, Limits
from vitlab.data.scan import PATIENCE, scan
from vitlab.data.source import Example, Source
from vitlab.errors import ImageError


@dataclass(frozen=True)
class Checked:
    """How many images of each split there are, why some cannot be used, and which have the same content."""

    totals: dict[str, int]
    bad: dict[str, list[ImageError]]
    duplicates: Duplicates

    @property
    def count(self) -> int:
        """How many images cannot be used."""
        return sum(map(len, self.bad.values()))

    def lines(self, data: str) -> list[str]:
        """Return the warnings and the counts of the data set `data`, for people."""
        total = sum(self.totals.values())
        counts = f"{data}: {total:,} images, {total - self.count:,} good, {self.count:,} bad"
        return [*(f"warning: {line}" for line in self.duplicates.warnings()), counts]

    def as_json(self) -> dict[str, Any]:
        """Return everything, for programs."""
        total = sum(self.totals.values())
        return {
            "total": total,
            "good": total - self.count,
            "bad": [
                {"split": split, "image": error.where, "what": error.what, "remedy": error.remedy}
                for split, errors in self.bad.items()
                for error in errors
            ],
            "conflicts": [asdict(group) for group in self.duplicates.conflicts],
            "leaks": [asdict(group) for group in self.duplicates.leaks],
        }


def check(
    sources: Mapping[str, Source],
    workers: int = 0,
    limits: Limits = LIMITS,
    patience: float = PATIENCE,
    seen: Callable[[ImageError | None], None] = lambda _: None,
) -> Checked:
    """Decode every image of the splits `sources` once and return what was found; `seen` is called after each, in
    order, with its error where it has one.

    What two images of the same content mean is in `Duplicates`; images that cannot be decoded are not compared.

    Raises:
        DataError: a label is the number of no class.
    """
    for source in sources.values():
        check_range(source.labels, source.classes, str(source))
    digests: dict[str, Digests] = {}
    bad: dict[str, list[ImageError]] = {}
    for split, source in sources.items():
        digests[split] = np.zeros((len(source), DIGEST_BYTES), np.uint8)
        bad[split] = []
        for index, answer in enumerate(scan(source, partial(_digest_if_good, limits), workers, patience)):
            if isinstance(answer, ImageError):
                bad[split].append(answer)
            else:
                digests[split][index] = np.frombuffer(answer, np.uint8)
            seen(answer if isinstance(answer, ImageError) else None)
    totals = {split: len(source) for split, source in sources.items()}
    return Checked(totals, bad, find_duplicates(sources, digests))


def find_bad_images(source: Source, workers: int = 0, limits: Limits = LIMITS) -> dict[int, ImageError]:
    """Decode every image of `source` once, in `workers` processes, and return the error of each that fails, by index."""
    answers: Iterator[ImageError | None] = scan(source, partial(_decode, limits), workers)
    return {index: error for index, error in enumerate(answers) if error is not None}


def _digest_if_good(limits: Limits, example: Example) -> bytes:
    _decode(limits, example)
    return digest_of(example)


def _decode(limits: Limits, example: Example) -> None:
    if isinstance(example.data, bytes):
        decode(example.data, example.key, limits)
