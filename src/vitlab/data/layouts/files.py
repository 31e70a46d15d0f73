"""Layouts of image files: class folders, and lists of files."""

import csv
import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from vitlab.config import Settings, nearest
from vitlab.data.folder import Folder
from vitlab.data.layouts.examples import Examples, inside, numbered_classes, packaged_lines, read_text, whole_number
from vitlab.data.path import read_file
from vitlab.errors import DataError

Names = tuple[str, ...]


class ClassFolders(Settings):
    """One folder a class, in the folder of each split ("" is the data set's own).

    `named` says what an example is called: "file.jpg", "class/file.jpg" or "class_file.jpg". `synsets` is the file in the
    package that lists the classes in order. With `train_per_class` the split "train" has that many images of every class,
    chosen by the hash of their names, and "test" the others.
    """

    type: Literal["ClassFolders"] = "ClassFolders"
    folders: dict[str, str]
    named: Literal["file", "class/file", "class_file"] = "class/file"
    synsets: str | None = None
    train_per_class: int | None = None

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split."""
        del names
        return class_folders(self, root / self.folders[split], split)


def class_folders(layout: ClassFolders, root: Path, split: str) -> Examples:
    """Return the examples in the class folders of `root`.

    Raises:
        DataError: a folder is not there, or is none of the classes that the layout knows.
    """
    listing = Folder(root).listing
    classes, labels = listing.classes, listing.labels
    chosen = np.arange(len(labels))
    if layout.train_per_class is not None:
        chosen = _some_of_each(layout.train_per_class, listing.names, labels.tolist(), train=split == "train")
    if layout.synsets is not None:
        known = {name: index for index, name in enumerate(packaged_lines(layout.synsets))}
        unknown = [name for name in classes if name not in known]
        if unknown:
            what = f"'{unknown[0]}' is none of its {len(known):,} classes"
            raise DataError(root, what, nearest(unknown[0], list(known), "remove that folder"))
        classes, labels = tuple(known), np.array([known[name] for name in classes], np.int64)[labels]
    paths = [listing.names[index] for index in chosen]
    called = [_called(path, layout.named) for path in paths]
    return Examples(classes, labels[chosen], called, lambda index: read_file(root / paths[index]))


def _called(path: str, named: Literal["file", "class/file", "class_file"]) -> str:
    folder, file = path.partition("/")[0], path.rpartition("/")[2]
    return {"file": file, "class/file": path, "class_file": f"{folder}_{file}"}[named]


def _some_of_each(
    count: int, names: list[str], labels: list[int], *, train: bool
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return which examples are among the first `count` of their class by the hash of their names, or are not."""
    order = sorted(range(len(names)), key=lambda index: hashlib.md5(names[index].encode("utf-8", "replace")).digest())
    seen = dict.fromkeys(labels, 0)
    taken = np.zeros(len(names), np.bool_)
    for index in order:
        taken[index] = seen[labels[index]] < count
        seen[labels[index]] += 1
    return np.flatnonzero(taken if train else ~taken)


class ImageLists(Settings):
    """A text file a split with an image a line: its name and, where `label` is "number", its class counted from `first`.

    `images` makes a name the path of the image; with `label` "folder" the class is the part of the name before the last /.
    `named` says what an example is called: as in the list, or by the name of its file.
    """

    type: Literal["ImageLists"] = "ImageLists"
    lists: dict[str, str]
    images: str
    label: Literal["folder", "number"]
    first: int = 0
    named: Literal["line", "file"] = "line"

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: a list is not there or makes no sense.
        """
        where = root / self.lists[split]
        rows = [line.split() for line in read_text(where).splitlines() if line.strip() and not line.startswith("#")]
        if self.label == "folder":
            folders = [row[0].rpartition("/")[0] for row in rows]
            classes = tuple(sorted(set(folders)))
            index = {name: number for number, name in enumerate(classes)}
            labels = np.array([index[folder] for folder in folders], np.int64)
        else:
            labels = np.array([_second(row, where) - self.first for row in rows], np.int64)
            classes = numbered_classes(names, int(labels.max(initial=-1)) + 1)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(where, f"holds a class that is none of the {len(classes)}", "fetch it again")
        paths = [inside(self.images.format(row[0].lstrip("/")), where) for row in rows]
        called = [row[0] for row in rows] if self.named == "line" else [path.rpartition("/")[2] for path in paths]
        return Examples(classes, labels, called, lambda number: read_file(root / paths[number]))


def _second(row: list[str], where: Path) -> int:
    if len(row) < 2:
        raise DataError(where, f"says no class of {row[0]!r}", "fetch it again")
    return whole_number(row[1], where)


class LabelTables(Settings):
    """A CSV file a split with columns `image` and `level`, and where `usage` names the split, `Usage` (Kaggle's retinopathy)."""

    type: Literal["LabelTables"] = "LabelTables"
    tables: dict[str, str]
    usage: dict[str, str]
    images: dict[str, str]

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: a table is not there or lacks a column.
        """
        where = root / self.tables[split]
        wanted = {"image", "level"} | ({"Usage"} if split in self.usage else set())
        try:
            rows = list(csv.DictReader(read_text(where).splitlines()))
        except csv.Error as error:
            raise DataError(where, f"is damaged ({error})", "fetch it again") from None
        if rows and not wanted <= rows[0].keys():
            raise DataError(where, f"lacks one of the columns {', '.join(sorted(wanted))}", "fetch it again")
        short = next((number for number, row in enumerate(rows, 1) if any(row[name] is None for name in wanted)), None)
        if short is not None:
            raise DataError(where, f"is cut short in row {short:,}", "fetch it again")
        rows = [row for row in rows if split not in self.usage or row["Usage"] == self.usage[split]]
        labels = np.array([whole_number(row["level"], where) for row in rows], np.int64)
        paths = [inside(self.images[split].format(row["image"]), where) for row in rows]
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            raise DataError(where, f"holds a level that is none of the {len(names)}", "fetch it again")
        return Examples(names, labels, [row["image"] for row in rows], lambda index: read_file(root / paths[index]))
