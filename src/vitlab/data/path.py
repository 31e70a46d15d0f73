"""A data set at a path: what class folders and tables share. Its subsets and parts, and reading its files."""

import os
import re
import stat
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitlab.config import Settings, parse
from vitlab.data.source import Part
from vitlab.errors import DataError, ImageError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
"""The names of ready splits, and the names that data sets give them."""
ALIASES = frozenset(name for names in SPLITS.values() for name in names)

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a FIFO must not block
_MAX_BYTES = 1 << 30  # read of one file; what an image may have is decided when it is decoded

D = TypeVar("D", bound="Listed")


@runtime_checkable
class Listing(Protocol):
    """What is known of a data set without reading its images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of every example of the whole data set: int64 [n]."""
        ...


class Listed(Settings):
    """A data set that is listed once, on first use: `subset` names one of its ready splits, `part` one side of a split by us.

    It can be made before it exists, from Python or JSON.
    """

    subset: str | None = None
    part: Part | None = None

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the whole subset is, in words."""

    def __str__(self) -> str:
        if self.part is None:
            return self.place
        shares: list[str] = []
        part: Part | None = self.part
        while part is not None:
            shares.append(f"{part.side} {part.fraction if part.side == 'test' else 1 - part.fraction:.0%}")
            part = part.of
        return f"{self.place} ({' of '.join(shares)})"

    def __eq__(self, other: object) -> bool:  # of the settings alone, whether listed yet or not
        return type(self) is type(other) and self._settings() == cast(Listed, other)._settings()

    def __hash__(self) -> int:
        return hash(tuple(self._settings().values()))

    def __copy__(self: D) -> D:  # what model_copy(update=...) starts from: not listed yet
        return type(self)(**self._settings())

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    @abstractmethod
    def listing(self) -> Listing:
        """What is in the subset, whatever the part."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them. They are those of the whole subset, whatever the part."""
        return self.listing.classes

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """The place of every example of this part in the whole subset: int64 [len]."""
        if self.part is None:
            return np.arange(len(self.listing.labels))
        return self.part.indices(self.listing.labels)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of every example: int64 [len]."""
        return self._labels

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return self.listing.labels if self.part is None else self.listing.labels[self.indices]

    def place_of(self, index: int) -> int:
        """Return the place of the example at `index` of this part in the whole subset."""
        return index if self.part is None else int(self.indices[index])

    def split(self: D, test: float, seed: int = 0) -> tuple[D, D]:
        """Return the training side and the test side: `test` is the fraction of every class that is held back.

        A side can be split again.

        Raises:
            SettingsError: `test` is not between 0 and 1.
        """
        sides = (self._side("train", test, seed), self._side("test", test, seed))
        for side in sides:
            vars(side)["listing"] = self.listing  # listed once, not three times
        return sides

    def _side(self: D, side: Literal["train", "test"], fraction: float, seed: int) -> D:
        part = parse(Part, {"side": side, "fraction": fraction, "seed": seed, "of": self.part}, "split")
        return self.model_copy(update={"part": part})


class DataPath(Listed):
    """A data set at a path."""

    path: Path

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        if path is not None:
            fields["path"] = path
        super().__init__(**fields)

    @property
    def place(self) -> str:
        """The path, with the name of the subset."""
        return str(self.path / self.subset) if self.subset else str(self.path)


def name_splits(path: Path | str, names: list[str]) -> dict[str, str]:
    """Return which of `names` in `path` are ready splits: "train", "val", "test" to the name, in that order.

    Raises:
        DataError: two of them are the same split.
    """
    splits: dict[str, str] = {}
    for split, aliases in SPLITS.items():
        same = [name for name in names if name.lower() in aliases]
        if len(same) > 1:
            raise DataError(path, f"has {len(same)} {split} splits: {', '.join(same)}", "rename all but one")
        if same:
            splits[split] = same[0]
    return splits


def printable(name: str) -> str:
    """Return a file name fit for a line of a log: control characters and undecodable bytes are escaped."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def leads_out(name: str) -> bool:
    """Return whether the path `name` is absolute or climbs, on any system, and so leads out of the folder it is relative to."""
    return re.match(r"[\\/]|[A-Za-z]:", name) is not None or ".." in re.split(r"[\\/]", name)


def inside(name: object, row: str) -> str:
    """Return `name`, of an image in a table, if it is a path that stays inside the folder it is relative to.

    Raises:
        DataError: it leads out of that folder, or is no file's; `row` names where it stands.
    """
    if not isinstance(name, str) or not name.strip():
        raise DataError(row, "holds no file name in this row", "add it, or remove the row")
    if leads_out(name) or "\0" in name:
        what = f"file name {name!r} leads out of the table's folder"
        raise DataError(row, what, "move the image into that folder, and name it relative to it")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise DataError(row, f"file name {name!r} is none that a file can have", "correct it") from None
    return name


def read_beside(folder: Path, name: str, row: str) -> bytes:
    """Return the image file that the row `row` of a table in `folder` names.

    Raises:
        ImageError: the name leads out of `folder`, or the file cannot be read.
    """
    try:
        return read_file(folder / inside(name, row))
    except ImageError:
        raise
    except DataError as error:
        raise ImageError(error.where, error.what, error.remedy) from None


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: the file has gone, may not be read, is no regular file, or has more than a gibibyte.
    """
    try:
        with open(os.open(path, _FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(printable(str(path)), "is no regular file", "remove it")
            if status.st_size > _MAX_BYTES:
                raise ImageError(printable(str(path)), f"has {status.st_size:,} bytes", "remove it, or shrink it")
            return file.read()
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise ImageError(printable(str(path)), what, "restore it or its permissions, or remove it") from None
