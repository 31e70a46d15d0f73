"""Gallery: the images at any number of places, in a fixed order, whether or not anybody says what they show."""

import glob
import hashlib
import json
import logging
import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from vitlab.config import nearest
from vitlab.data import table, webdataset
from vitlab.data.catalog import entries
from vitlab.data.folder import image_names
from vitlab.data.labels import NONE, Labels, is_multi_label
from vitlab.data.open import EMBEDDED, open_splits
from vitlab.data.path import DataPath, read_file
from vitlab.data.shards import Shards, find_splits, is_pack, refuse_unfinished
from vitlab.data.source import Example, Source, name_of
from vitlab.data.store import is_address
from vitlab.data.table import Table
from vitlab.data.webdataset import WebDataset
from vitlab.errors import DataError

STDIN = "-"
"""The place that stands for a list of paths on standard input."""
S = TypeVar("S", bound=Table | WebDataset)
_log = logging.getLogger("vitlab")


class Files:
    """Image files, by their paths below the folder `root`, or as they stand where it is "".

    The paths are one block of bytes, some sixty a file: a million costs 70 MB, which worker processes share.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, root: str, names: Iterable[str]) -> None:
        block, ends = bytearray(), array("q", [0])
        for name in names:
            block += os.fsencode(name)
            ends.append(len(block))
        self.root, self.block, self.ends = root, bytes(block), np.array(ends)

    @property
    def labels(self) -> Labels:
        """Labels [n, 1] that say of no image what it shows."""
        return _unlabelled(len(self))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def name(self, index: int) -> str:
        """Return the path of a file below `root`."""
        return os.fsdecode(self.block[self.ends[index] : self.ends[index + 1]])

    def file(self, index: int) -> Path:
        """Return the path of a file."""
        return Path(self.root, self.name(index))

    def key(self, index: int) -> str:
        """Return the path of a file as text."""
        return as_text(str(self.file(index)))

    def read(self, index: int) -> Example:
        """Return the file at `index`.

        Raises:
            ImageError: it is not there, or may not be read.
        """
        return Example(read_file(self.file(index)), (), self.key(index))

    def shown(self, index: int, known: Collection[str]) -> tuple[str, ...] | None:
        """Return the outermost folder below `root` that is called as one of the `known` classes; loose files have none."""
        folders = self.name(index).split("/")[:-1] if self.root else ()
        found = next((folder for folder in folders if folder in known), None)
        return None if found is None else (found,)

    def __str__(self) -> str:
        return self.root or (self.key(0) if len(self) == 1 else f"{len(self):,} files")


class Gallery:
    """The examples of `sources` one after another, each under its key with what stands before it: "test/" where that is a split."""

    classes: tuple[str, ...] = ()

    def __init__(self, sources: Sequence[tuple[str, Source]]) -> None:
        self._sources = sources
        self._starts = [0, *accumulate(len(source) for _, source in sources)]

    @property
    def labels(self) -> Labels:
        """Labels [n, 1] that say of no image what it shows: `shown` does, for the classes of different sources differ."""
        return _unlabelled(len(self))

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, index: int) -> Example:
        """Return the example at `index`.

        Raises:
            ImageError: it cannot be read.
        """
        before, source, place = self._at(index)
        example = source.read(place)
        return Example(example.data, (), before + as_text(example.key))

    def key(self, index: int) -> str:
        """Return what the example at `index` is called; of a pack, whose names are beside its images, its number."""
        before, source, place = self._at(index)
        return before + as_text(name_of(source, place))

    def shown(self, index: int, known: Collection[str]) -> tuple[str, ...] | None:
        """Return the names of the classes that the example at `index` is said to show, None where nobody says."""
        _, source, place = self._at(index)
        if isinstance(source, Files):
            return source.shown(place, known)
        row = np.atleast_1d(source.labels[place])
        return tuple(as_text(source.classes[int(label)]) for label in row if label != NONE) if source.classes else None

    def labelled(self, known: Collection[str]) -> Literal["label", "labels"] | None:
        """Return whether the examples have one label each, or any number of them, as far as they have any."""
        found = [source for _, source in self._sources if source.classes]
        if any(is_multi_label(source.labels) for source in found):
            return "labels"
        files = [source for _, source in self._sources if isinstance(source, Files)]
        return "label" if found or any(_any_shown(source, known) for source in files) else None

    def digest(self) -> str:
        """Return a hash of which images these are, in which order: of the names of files, the sizes and times of files of rows."""
        digest = hashlib.sha256()
        for before, source in self._sources:
            path = os.path.abspath(source.root if isinstance(source, Files) else getattr(source, "path", ""))
            digest.update(json.dumps([before, str(source), path, len(source), source.classes]).encode())
            if isinstance(source, Files):
                digest.update(source.ends.tobytes())
                digest.update(source.block)
            else:
                digest.update(np.ascontiguousarray(source.labels).tobytes())
                digest.update(_stamp(source).encode())
        return digest.hexdigest()

    def __str__(self) -> str:
        return ", ".join(dict.fromkeys(str(source) for _, source in self._sources))

    def _at(self, index: int) -> tuple[str, Source, int]:
        number = bisect_right(self._starts, index) - 1
        return *self._sources[number], index - self._starts[number]


def as_text(name: str) -> str:
    """Return `name` as text that any file can hold: what is no UTF-8 in it is escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def open_gallery(places: Sequence[str], listed: str = "", *, labelled: bool = False) -> Gallery:
    """Return the images at `places`: image files, folders of them (in class folders or not), patterns ("photos/*.jpg"), tables,
    packs, tar files, and what `open_data` opens by a name; "-" stands for the paths `listed`, one a line, or each with a NUL
    behind it. All ready splits of a data set belong to it.

    Labels are not needed: with `labelled` those of a data set are read where it has them, and it is logged where they are no use.

    Raises:
        DataError: there is nothing at a place, or no image in it.
    """
    found: list[tuple[str, Source]] = []
    loose: list[str] = []

    def keep_loose() -> None:
        if loose:
            found.append(("", Files("", loose)))
            loose.clear()

    for place in places:
        for name, sources in _listed(listed, labelled) if place == STDIN else _found(place, labelled):
            if sources:
                keep_loose()
                found += sources
            else:
                loose.append(name)
    keep_loose()
    gallery = Gallery(found)
    if not len(gallery):
        raise DataError(", ".join(places), "names no images", "give image files, or a folder of them")
    return gallery


Found = tuple[str, list[tuple[str, Source]]]
"""A path, and the sources that it holds: none where it is itself an image."""


def _listed(text: str, labelled: bool) -> Iterator[Found]:
    """Yield what is at the paths in `text`; an image of a long list that is not there is a bad image, and no reason to stop."""
    for name in text.split("\0") if "\0" in text else re.split("\r?\n", text):
        if name:
            special = os.path.isdir(name) or name.lower().endswith((*table.SUFFIXES, *webdataset.SUFFIXES))
            yield from _found(name, labelled) if special else [(str(Path(name)), [])]


def _found(name: str, labelled: bool) -> Iterator[Found]:
    """Yield what is at a path, at those that a pattern fits, or under a name."""
    path = Path(name)
    if path.is_dir():
        yield str(path), _in_folder(path, labelled)
    elif path.exists():
        yield str(path), _in_file(path, labelled)
    elif matches := sorted(glob.glob(name, recursive=True)) if not is_address(name) else []:
        for match in matches:
            yield from _found(match, labelled)
    elif name in EMBEDDED or is_address(name) or name in entries():
        yield name, _by_split(open_splits(name))
    else:
        what = "fits no file" if glob.has_magic(name) else "does not exist"
        raise DataError(name, what, nearest(name, [*EMBEDDED, *entries()], "check the path"))


def _in_folder(path: Path, labelled: bool) -> list[tuple[str, Source]]:
    """Return the images in a folder; parquet files beside images, as earlier predictions, make it no table."""
    if is_pack(path):
        refuse_unfinished(path)
        splits = find_splits(str(path))
        return _by_split({split: Shards(path, subset=split) for split in splits} or {"": Shards(path)})
    if webdataset.tar_files(path):
        return _by_subset(WebDataset(path), webdataset.find_splits(path), labelled)
    names = image_names(path)
    if table.table_files(path) and not any("." in name.rpartition("/")[2] for name in names):
        return _by_subset(Table(path), table.find_splits(path), labelled)
    if not names:
        raise DataError(path, "holds no images", "give image files, or a folder of them")
    return [("", Files(str(path), names))]


def _in_file(path: Path, labelled: bool) -> list[tuple[str, Source]]:
    """Return the images in a table or tar file; none for what can only be an image itself."""
    name = path.name.lower()
    if name.endswith(table.SUFFIXES):
        return [("", _opened(Table(path), labelled))]
    return [("", _opened(WebDataset(path), labelled))] if name.endswith(webdataset.SUFFIXES) else []


def _by_subset(data: Table | WebDataset, splits: dict[str, str], labelled: bool) -> list[tuple[str, Source]]:
    if len(splits) < 2:
        return [("", _opened(data, labelled))]
    subsets = {split: data.model_copy(update={"subset": name}) for split, name in splits.items()}
    return _by_split({split: _opened(subset, labelled) for split, subset in subsets.items()})


def _by_split(sources: Mapping[str, Source]) -> list[tuple[str, Source]]:
    several = len(sources) > 1
    return [(f"{split}/" * several, source) for split, source in sources.items()]


def _opened(data: S, labelled: bool) -> S:
    """Return a data set as it is if that is asked for and it can be, else without its labels."""
    column = {"label_column": None} if isinstance(data, Table) else {"label_suffix": None}
    without = data.model_copy(update=column)
    if not labelled:
        return without
    try:
        len(data)
    except DataError as error:
        len(without)  # says what is wrong with more than its labels
        _log.warning("%s: its labels are left out: %s", data, error.what)
        return without
    return data


def _unlabelled(count: int) -> Labels:
    return np.broadcast_to(np.int64(NONE), (count, 1))


def _any_shown(files: Files, known: Collection[str]) -> bool:
    """Return whether a file says what it shows; every folder is looked at once."""
    seen: set[str] = set()
    for index in range(len(files)) if files.root else ():
        folder = files.name(index).rpartition("/")[0]
        if folder not in seen:
            seen.add(folder)
            if files.shown(index, known):
                return True
    return False


def _stamp(source: Source) -> str:
    """Return what changes with the files that hold the rows of a data set."""
    if isinstance(source, Shards):
        return source.listing.manifest.sums_sha256
    if not isinstance(source, DataPath):
        return ""
    files = webdataset.tar_files(source.path) if isinstance(source, WebDataset) else table.table_files(source.path)
    return json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
