"""Examples: one split of a published data set, in the order of its files; and reading what stands beside the images."""

import csv
import gzip
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from vitlab.data.path import leads_out
from vitlab.data.source import Pixels
from vitlab.errors import DataError

MAX_TEXT_BYTES = 1 << 30
"""Of one file of lists or annotations: CLEVR's largest has a fifth of it."""


@dataclass(frozen=True)
class Examples:
    """One split: class names, labels (int64 [n], or [n, m] padded with -1), what the files call each example, and how to read it.

    `fetch` gives the bytes of an image file, or pixels (uint8 [h, w, 3]). `missing` names files that belong to the split and are
    not there, as far as their names are known.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: Sequence[str]
    fetch: Callable[[int], bytes | Pixels]
    missing: Sequence[str] = ()


class Numbered(Sequence[str]):
    """The names of examples that have none but their place: "0", "1", ... after a prefix; it takes no memory."""

    def __init__(self, count: int, prefix: str = "") -> None:
        self._range, self._prefix = range(count), prefix

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [f"{self._prefix}{number}" for number in self._range[index]]
        return f"{self._prefix}{self._range[index]}"


def numbered_classes(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return `names`, or where there are none the numbers from 0 as names of `count` classes."""
    return names or tuple(map(str, range(count)))


def read_text(path: Path) -> str:
    """Return the text of a file that came with a data set.

    Raises:
        DataError: it is not there, cannot be read, is no text, or has more than a gibibyte.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise DataError(path, f"has more than {MAX_TEXT_BYTES:,} bytes", "fetch it again")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise missing(path, error) from None
    except ValueError:
        raise DataError(path, "is not text", "fetch it again") from None


def missing(path: Path, error: OSError) -> DataError:
    """Return the error of a file that belongs to a data set and cannot be read."""
    what = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return DataError(path, what, "unpack the data set's files as they come, without renaming them")


def in_short(error: Exception) -> str:
    """Return what a library says of a damaged file as part of one line."""
    return " ".join(str(error).split())[:200]


def inside(name: str, where: Path) -> str:
    """Return `name` if it is the path of a file inside the folder it is relative to; `where` is the file that holds it.

    Raises:
        DataError: it is empty, absolute, or leads out.
    """
    if not name or leads_out(name) or not name.isprintable():
        raise DataError(where, f"names {name!r}, which is no file of this data set", "fetch it again")
    return name


def whole_number(text: str, where: Path) -> int:
    """Return `text` as a whole number; `where` is the file that holds it.

    Raises:
        DataError: it is none, or has more than nine digits.
    """
    if re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", text) is None:
        raise DataError(where, f"holds {text[:40]!r} where a number belongs", "fetch it again")
    return int(text)


@cache
def packaged_lines(name: str) -> tuple[str, ...]:
    """Return the lines of a text file in the catalog's folder of this package."""
    content = resources.files("vitlab.data").joinpath("catalog", name).read_bytes()
    return tuple((gzip.decompress(content) if name.endswith(".gz") else content).decode().splitlines())


@cache
def imagenet_synsets() -> dict[str, str]:
    """Return the synsets of ImageNet's 1,000 classes and the words for them, in the order of the class numbers."""
    return {row["synset"]: row["name"] for row in csv.DictReader(packaged_lines("imagenet1k.csv"))}


def are_synsets(classes: Sequence[str]) -> bool:
    """Return whether all class names are synsets of ImageNet's 1,000 classes, as its folders are called."""
    return bool(classes) and imagenet_synsets().keys() >= set(classes)


def in_words(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words for class names that are synsets of ImageNet, other names as they are."""
    return tuple(imagenet_synsets()[name] for name in classes) if are_synsets(classes) else classes
