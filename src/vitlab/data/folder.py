"""Folder: one folder a class; and finding ready splits and images in folders."""

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitlab.config import nearest
from vitlab.data.path import ALIASES, SPLITS, DataPath, name_splits, printable, read_file
from vitlab.data.source import Example
from vitlab.errors import DataError

# Formats that are not supported are among them: their files are refused by name, not left out.
_SUFFIX = re.compile(
    r"\.(jpg|jpeg|jpe|jfif|png|apng|gif|bmp|dib|tif|tiff|webp|avif|jp2|j2k|jpx|p[pgbn]m|ico"
    r"|heic|heif|jxl|svg|psd|eps|exr|hdr|dng|cr2|nef|arw)",
    re.IGNORECASE,
)
_LOOKED_FOR = "JPEG, PNG, WebP, GIF, BMP, TIFF and other images, by their suffix"
_SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


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
    suffix, also those without one; `listing.ignored` says of the rest why: hidden and system files, other suffixes, FIFOs
    and sockets, images beside the class folders, links back to a folder that holds them or into another class. Other
    links are followed.

    Raises, on first use:
        DataError: the folder is missing or holds ready splits instead of classes, a folder cannot be read, a link leads
            nowhere, two classes would be written alike; or, except in a val or test subset, there is a class without
            images or only one class.
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
        dangling: list[str] = []
        for folder in folders:
            found = sorted(_files(folder, root, ignored, dangling))
            names += found
            counts.append(len(found))
        _refuse_dangling(root, dangling)
        if self.subset is None or self.subset.lower() in SPLITS["train"]:
            _check_trainable(root, folders, counts)
        elif not names:
            raise DataError(root, "holds no images", f"put class folders into it; looked for were {_LOOKED_FOR}")
        labels = np.repeat(np.arange(len(folders)), counts)
        prefix = "" if root == self.path else f"{root.name}/"
        return FolderListing(_class_names(root, folders), labels, [prefix + name for name in names], ignored)

    def read(self, index: int) -> Example:
        """Return the file at `index`; its key is its path relative to `path`, with odd characters escaped.

        Raises:
            ImageError: the file has gone, or may not be read.
        """
        return Example(read_file(self.file(index)), int(self.labels[index]), self.key(index))

    def file(self, index: int) -> Path:
        """Return the file of the example at `index`."""
        return self.path / self.listing.names[self.place_of(index)]

    def key(self, index: int) -> str:
        """Return the key of the example at `index` without reading its file."""
        return printable(self.listing.names[self.place_of(index)])


def find_splits(path: Path) -> dict[str, str]:
    """Return the ready splits of the folder `path`: "train", "val", "test" to the names of their sub-folders.

    A sub-folder without folders in it is none: it is a class of that name, or images without labels.

    Raises:
        DataError: the folder cannot be read, or two sub-folders are the same split.
    """
    named = [entry for entry in _folders(path) if entry.name.lower() in ALIASES]
    return name_splits(path, [entry.name for entry in named if any(_folders(Path(entry.path)))])


def find_beside(path: Path) -> list[str]:
    """Return what is in the folder `path` beside its ready splits and is not read, sorted; hidden and system files are not named.

    Raises:
        DataError: the folder cannot be read, or two sub-folders are the same split.
    """
    splits = find_splits(path).values()
    others = [entry for entry in _entries(path) if entry.name not in splits and not _hidden(entry.name)]
    return [printable(entry.name) + "/" * _is_folder(entry) for entry in others]


def find_images(root: Path) -> list[Path]:
    """Return the images in and below `root` in order, in class folders or not, told by their suffix as `Folder` does.

    Raises:
        DataError: the folder cannot be read, or a link leads nowhere.
    """
    return [root / name for name in image_names(root)]


def image_names(root: Path) -> list[str]:
    """Return the paths of `find_images` relative to `root`.

    Raises:
        DataError: the folder cannot be read, or a link leads nowhere.
    """
    loose = [
        entry.name for entry in _entries(root) if not _hidden(entry.name) and entry.is_file() and "." in entry.name
    ]
    names = [name for name in loose if _is_image_name(name)]
    dangling: list[str] = []
    for folder in _folders(root):
        names += _files(folder.name, root, {}, dangling)
    _refuse_dangling(root, dangling)
    return sorted(names)


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
    ignored.update(dict.fromkeys(loose, "an image in no class folder"))
    if not folders:
        what = f"holds {len(loose)} images but no class folders" if loose else "holds no images"
        remedy = f"make one folder a class in it; looked for are {_LOOKED_FOR}"
        raise DataError(root, what, remedy)
    return folders, ignored


def _class_names(root: Path, folders: list[str]) -> tuple[str, ...]:
    classes = tuple(map(printable, folders))
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(root, f"has two class folders that are written '{twice}'", "rename one of them")
    return classes


def _refuse_dangling(root: Path, names: list[str]) -> None:
    if names:
        others = f", and so are {len(names) - 1} others: {', '.join(map(printable, names[1:10]))}"
        what = f"is a link that leads nowhere{others * (len(names) > 1)}{', …' * (len(names) > 10)}"
        raise DataError(
            printable(str(root / names[0])), what, "repair or remove it" if not names[1:] else "repair or remove them"
        )


def _check_trainable(root: Path, folders: list[str], counts: list[int]) -> None:
    empty = [folder for folder, count in zip(folders, counts, strict=True) if count == 0]
    if empty:
        names = ", ".join(f"'{printable(name)}'" for name in empty[:5]) + ", …" * (len(empty) > 5)
        remedy = f"fill or remove them; looked for were {_LOOKED_FOR}"
        raise DataError(root, f"has {len(empty)} classes without images: {names}", remedy)
    if len(folders) == 1:
        what = f"has only one class, '{printable(folders[0])}': there is nothing to learn"
        raise DataError(root, what, "give at least two class folders")


def _files(folder: str, root: Path, ignored: dict[str, str], dangling: list[str]) -> Iterator[str]:
    """Yield the images in and below `folder`, a name in `root`, as paths relative to `root`; every real folder once."""
    seen: set[str] = set()
    within = Path(os.path.realpath(root))
    top = os.path.realpath(root / folder)
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in seen or within.is_relative_to(real):
            ignored[printable(folder)] = "a link to a folder that is read already or that holds it"
            continue
        if Path(real).is_relative_to(within) and not Path(real).is_relative_to(top):
            ignored[printable(folder)] = "a link into another class"
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
                dangling.append(name)
            elif entry.is_file():
                yield name
            else:
                ignored[printable(name)] = "no regular file"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
