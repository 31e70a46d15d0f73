"""Folder: one folder a class. And what it shares with every data set at a path: subsets, parts, and finding them."""

import os
import re
import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitlab.config import Settings, nearest, parse
from vitlab.data.source import Example, Part
from vitlab.errors import DataError, ImageError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
"""The names of ready splits, and the names that data sets give them."""
ALIASES = frozenset(name for names in SPLITS.values() for name in names)

# Formats that are not supported are among them: their files are refused by name, not left out.
_SUFFIX = re.compile(
    r"\.(jpg|jpeg|jpe|jfif|png|apng|gif|bmp|dib|tif|tiff|webp|avif|jp2|j2k|jpx|p[pgbn]m|ico"
    r"|heic|heif|jxl|svg|psd|eps|exr|hdr|dng|cr2|nef|arw)",
    re.IGNORECASE,
)
_LOOKED_FOR = "JPEG, PNG, WebP, GIF, BMP, TIFF and other images, by their suffix"
_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a FIFO must not block
_MAX_BYTES = 1 << 30  # read of one file; what an image may have is decided when it is decoded


D = TypeVar("D", bound="DataPath")


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


class DataPath(Settings):
    """A data set at a path: `subset` names one of its ready splits, `part` one side of a split made by us.

    It can be made before it exists, from Python or JSON; what is there is listed once, on first use.
    """

    path: Path
    subset: str | None = None
    part: Part | None = None

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        super().__init__(**(fields if path is None else {"path": path, **fields}))

    def __str__(self) -> str:
        name = str(self.path / self.subset) if self.subset else str(self.path)
        if self.part is None:
            return name
        share = self.part.fraction if self.part.side == "test" else 1 - self.part.fraction
        return f"{name} ({self.part.side} {share:.0%})"

    def __eq__(self, other: object) -> bool:  # of the settings alone, whether listed yet or not
        return type(self) is type(other) and self._settings() == cast(DataPath, other)._settings()

    def __hash__(self) -> int:
        return hash((self.path, self.subset, self.part))

    def __copy__(self: D) -> D:  # what model_copy(update=...) starts from: not listed yet
        return type(self)(**self._settings())

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def listing(self) -> Listing:
        """What is at the path and in the subset, whatever the part."""
        raise NotImplementedError

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
        return self.listing.labels[self.indices]

    def split(self: D, test: float, seed: int = 0) -> tuple[D, D]:
        """Return the training side and the test side: `test` is the fraction of every class that is held back.

        Raises:
            DataError: this is one side of a split already.
            SettingsError: `test` is not between 0 and 1.
        """
        if self.part is not None:
            raise DataError(str(self), "is one side of a split already", "split the whole data set")
        sides = (self._side("train", test, seed), self._side("test", test, seed))
        for side in sides:
            vars(side)["listing"] = self.listing  # listed once, not three times
        return sides

    def _side(self: D, side: Literal["train", "test"], fraction: float, seed: int) -> D:
        part = parse(Part, {"side": side, "fraction": fraction, "seed": seed}, "split")
        return self.model_copy(update={"part": part})


class FolderListing(NamedTuple):
    """The files of a folder of class folders; `ignored` says of everything that was left out why."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: list[str]
    ignored: dict[str, str]


class Folder(DataPath):
    """Class folders: the class of an image is the name of the first-level folder that holds it, at any depth.

    Classes and files are in the order of `sorted`. `subset` names a sub-folder that holds the class folders ("val" also
    finds "valid", "validation" and "dev"); without it `path` itself holds them. Files are taken as images by their
    suffix, also those without one; `listing.ignored` counts the rest: hidden and system files, other suffixes, FIFOs
    and sockets, links back to a folder that holds them. Other links are followed.

    Raises, on first use:
        DataError: the folder is missing or holds ready splits instead of classes, there are images beside the class
            folders, a link leads nowhere; or, except in a val or test subset, there is a class without images or only
            one class.
    """

    type: Literal["Folder"] = "Folder"

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        super().__init__(path, **fields)

    @cached_property
    def listing(self) -> FolderListing:
        """The files and what was ignored."""
        root = self.path
        if self.subset is not None:
            splits = find_splits(self.path)
            root = self.path / splits.get(self.subset, self.subset)
            if not root.is_dir():
                remedy = nearest(self.subset, list(splits)) or "it holds no ready splits; leave subset out"
                raise DataError(self.path, f"has no sub-folder '{self.subset}'", remedy)
        folders, ignored = _class_folders(root)
        if self.subset is None and all(folder.lower() in ALIASES for folder in folders):
            remedy = f"choose one, as Folder('{root}', subset='{folders[0]}'), with class folders in it"
            raise DataError(root, f"holds ready splits ({', '.join(folders)}), not classes", remedy)
        names: list[str] = []
        counts: list[int] = []
        for folder in folders:
            found = sorted(_files(folder, root, ignored))
            names += found
            counts.append(len(found))
        if self.subset is None or self.subset.lower() in SPLITS["train"]:
            _check_trainable(root, folders, counts)
        elif not names:
            raise DataError(root, "holds no images", f"put class folders into it; looked for were {_LOOKED_FOR}")
        labels = np.repeat(np.arange(len(folders)), counts)
        prefix = "" if root == self.path else f"{root.name}/"
        return FolderListing(tuple(map(printable, folders)), labels, [prefix + name for name in names], ignored)

    def read(self, index: int) -> Example:
        """Return the file at `index`; its key is its path relative to `path`, with odd characters escaped.

        Raises:
            ImageError: the file has gone, or may not be read.
        """
        name = self.listing.names[int(self.indices[index])]
        return Example(read_file(self.path / name), int(self.labels[index]), printable(name))


def find_splits(path: Path) -> dict[str, str]:
    """Return the ready splits of the folder `path`: "train", "val", "test" to the names of their sub-folders.

    A sub-folder without folders in it is none: it is a class of that name, or images without labels.

    Raises:
        DataError: the folder cannot be read, or two sub-folders are the same split.
    """
    named = [entry for entry in _folders(path) if entry.name.lower() in ALIASES]
    return name_splits(path, [entry.name for entry in named if any(_folders(Path(entry.path)))])


def name_splits(path: Path, names: list[str]) -> dict[str, str]:
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


def find_images(root: Path) -> list[Path]:
    """Return the images in and below `root` in order, in class folders or not, told by their suffix as `Folder` does.

    Raises:
        DataError: the folder cannot be read, or a link leads nowhere.
    """
    loose = [
        entry.name for entry in _entries(root) if not _hidden(entry.name) and entry.is_file() and "." in entry.name
    ]
    names = [name for name in loose if _is_image_name(name)]
    for folder in _folders(root):
        names += _files(folder.name, root, {})
    return [root / name for name in sorted(names)]


def printable(name: str) -> str:
    """Return a file name fit for a line of a log: control characters and undecodable bytes are escaped."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


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


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise DataError(printable(str(path)), "does not exist", "check the path") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(printable(str(path)), f"cannot be listed ({reason})", "make it readable") from None


def _folders(path: Path) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in _entries(path) if not _hidden(entry.name) and _is_folder(entry))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM


def _is_image_name(name: str) -> bool:
    suffix = re.search(r"\.[A-Za-z][A-Za-z0-9]{0,7}\Z", name)  # "img.0001" has none
    return suffix is None or _SUFFIX.fullmatch(suffix[0]) is not None


def _class_folders(root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the names of the class folders in `root`, and what else was ignored there."""
    folders: list[str] = []
    loose: list[str] = []
    ignored: dict[str, str] = {}
    for entry in _entries(root):
        if _hidden(entry.name):
            ignored[printable(entry.name)] = "hidden or a system file"
        elif _is_folder(entry):
            folders.append(entry.name)
        elif "." in entry.name and _is_image_name(entry.name):
            loose.append(printable(entry.name))
        else:
            ignored[printable(entry.name)] = "not in a class folder"
    if loose and folders:
        what = f"holds {len(loose)} images beside its class folders ({', '.join(loose[:3])}{', …' * (len(loose) > 3)})"
        raise DataError(root, what, "move them into the folder of their class, or away")
    if not folders:
        what = f"holds {len(loose)} images but no class folders" if loose else "holds no images"
        remedy = f"make one folder a class in it; looked for are {_LOOKED_FOR}"
        raise DataError(root, what, remedy)
    return folders, ignored


def _check_trainable(root: Path, folders: list[str], counts: list[int]) -> None:
    empty = [folder for folder, count in zip(folders, counts, strict=True) if count == 0]
    if empty:
        names = ", ".join(f"'{printable(name)}'" for name in empty[:5]) + ", …" * (len(empty) > 5)
        remedy = f"fill or remove them; looked for were {_LOOKED_FOR}"
        raise DataError(root, f"has {len(empty)} classes without images: {names}", remedy)
    if len(folders) == 1:
        what = f"has only one class, '{printable(folders[0])}': there is nothing to learn"
        raise DataError(root, what, "give at least two class folders")


def _files(folder: str, root: Path, ignored: dict[str, str]) -> Iterator[str]:
    """Yield the images in and below `folder`, a name in `root`, as paths relative to `root`; every real folder once."""
    seen: set[str] = set()
    within = Path(os.path.realpath(root))
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in seen or within.is_relative_to(real):
            ignored[printable(folder)] = "a link to a folder that is read already or that holds it"
            continue
        seen.add(real)
        for entry in _entries(root / folder):
            name = f"{folder}/{entry.name}"
            if _hidden(entry.name):
                ignored[printable(name)] = "hidden or a system file"
            elif _is_folder(entry):
                waiting.append(name)
            elif not _is_image_name(entry.name):
                ignored[printable(name)] = "not an image by its suffix"
            elif entry.is_symlink() and not os.path.exists(entry.path):
                raise DataError(printable(entry.path), "is a link that leads nowhere", "repair or remove it")
            elif entry.is_file():
                yield name
            else:
                ignored[printable(name)] = "no regular file"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
