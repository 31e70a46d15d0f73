"""Table: examples as rows of parquet files (the Hugging Face layout), or of a CSV or JSONL file beside the images."""

import csv
import json
import logging
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import Field

from vitlab.config import nearest
from vitlab.data.arrow import ArrowRows, open_arrow
from vitlab.data.column import SEVERAL, Cells, Column, encode, split_cell
from vitlab.data.labels import NONE, Labels, label_at
from vitlab.data.parquet import ParquetRows, open_parquet
from vitlab.data.path import ALIASES, DataPath, inside, name_splits, printable, read_file
from vitlab.data.schema import Opened, check_alike, check_columns, first_of, reading
from vitlab.data.source import Example
from vitlab.errors import DataError

SUFFIXES = (".parquet", ".arrow", ".csv", ".jsonl")
_STORED = (".parquet", ".arrow")
_BESIDE = ("metadata.jsonl", "metadata.csv", "*/metadata.jsonl", "*/metadata.csv")
_DEPTH = 2  # of the sub-folders of a table: data/train/0000.parquet
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
_NOTED: set[Path] = set()


class Table(DataPath):
    """Rows of an image and its label, or its labels.

    `path` is a parquet, Arrow, CSV or JSONL file, or a folder of parquet files, of what `datasets.save_to_disk` wrote, or
    with a metadata.csv or metadata.jsonl; the files may be in its sub-folders, two deep. `subset` chooses the files of
    one split, told by the first word of their names ("train-00000-of-00294") or by a folder above them ("data/train");
    "val" also finds "valid", "validation" and "dev".

    Parquet and Arrow: `image_column` holds the bytes of image files, or structs with `bytes`, or with the `path` of a file
    inside the folder of the table's file. CSV and JSONL: `image_column`, or `file_name` or `path` where there is no such
    column, holds the path of an image file relative to the table's folder, and inside it. `label_column`, or `labels` where
    there is no such column, holds class names, or integers whose names may be in the `huggingface` key of a schema. Without
    names in the schema the classes are the labels that occur, sorted.

    With `label_column` None the labels are left alone: an image has none, and there are no classes.

    A column of lists (not in CSV) gives an image any number of labels, also none. In CSV that is the column called
    `labels`, with "|" between them, or any column where a `separator` is given; "|" in any other is refused.

    Opening reads the labels and no image. Of a parquet file a read decodes one page, of about a mebibyte, and keeps the
    last of them (see `ParquetRows`); Arrow files are mapped, and must not change while they are read. A pickled table
    holds its settings only, so worker processes copy no data.

    Raises, on first use:
        DataError: there is no such file, subset or column; a file cannot be read; a label is missing, of another type
            than the others or without a class name; lists are zeros and ones instead of class numbers; there are no
            rows, or only one class; a file name leads out of the table's folder.
    """

    type: Literal["Table"] = "Table"
    image_column: str = "image"
    label_column: str | None = "label"
    separator: Annotated[str, Field(min_length=1)] | None = None

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        super().__init__(path, **fields)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": self._settings()}

    @cached_property
    def listing(self) -> "_Stored | _FileNames":
        """The labels, the class names, and how to read an image."""
        files = _files(self.path, self.subset)
        return (_Stored if files[0].suffix.lower() in (".parquet", ".arrow") else _FileNames)(self, files)

    def read(self, index: int) -> Example:
        """Return the row at `index`; its key is its file and row number, or the file name in the row.

        Raises:
            ImageError: the row holds no image, or its file cannot be read.
        """
        data, key = self.listing.read(self.place_of(index))
        return Example(data, label_at(self.labels, index), key)

    def key(self, index: int) -> str:
        """Return the key of the row at `index` without reading its image."""
        return self.listing.key(self.place_of(index))

    def file(self, index: int) -> Path | None:
        """Return the file that the row at `index` of CSV or JSONL names, None where the table holds the image."""
        return self.listing.file(self.place_of(index))


def find_splits(path: Path) -> dict[str, str]:
    """Return the ready splits of the table at `path`: "train", "val", "test" to what its files call them.

    A single file, or a folder that holds no table, has none.

    Raises:
        DataError: there are two names for one split.
    """
    names = dict.fromkeys(name for file in table_files(path) if (name := _split_name(file, path)) is not None)
    return name_splits(path, list(names))


def table_files(path: Path) -> list[Path]:
    """Return the files of the table at `path`: itself, or those a folder holds, sorted; empty if it is no table."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    found = _stored_files(path)
    for pattern in _BESIDE:
        found = found or sorted(file for file in path.glob(pattern) if not file.parent.name.startswith("."))
    return found


def _stored_files(path: Path) -> list[Path]:
    """Return the files that hold images, all of one kind and one depth, so that labels never come from two places.

    Every folder is listed once, and a folder of images at the depth of the files of a class in ready splits not to its end.
    """
    found: dict[tuple[str, int], list[Path]] = {}
    folders = [str(path)]
    for depth in range(_DEPTH + 1):
        deeper: list[str] = []
        for folder in folders:
            for entry in _listed(folder):
                if entry.name.startswith((".", "cache-")):  # datasets leaves cache-*.arrow beside what it saved
                    continue
                suffix = next((suffix for suffix in _STORED if entry.name.endswith(suffix)), None)
                if suffix:
                    found.setdefault((suffix, depth), []).append(Path(entry.path))
                elif depth < _DEPTH and entry.is_dir():
                    deeper.append(entry.path)
                elif depth == _DEPTH and entry.name.lower().endswith(_IMAGES):
                    break
        folders = deeper
    order = ((suffix, depth) for suffix in _STORED for depth in range(_DEPTH + 1))
    return sorted(next((found[each] for each in order if each in found), []))


def _listed(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder; one that cannot be listed has none: who reads it as class folders says so."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def _split_name(file: Path, root: Path) -> str | None:
    """Return what `file` of the folder `root` calls its split, if it is one."""
    if file == root:
        return None
    words = [re.split(r"[-_.]", file.name)[0], *reversed(file.relative_to(root).parts[:-1])]
    return next((word for word in words if word.lower() in ALIASES), None)


def _files(path: Path, subset: str | None) -> list[Path]:
    files = table_files(path)
    if not files:
        what = "does not exist" if not path.exists() else "holds no table" if path.is_dir() else "is no table"
        remedy = f"give a file ({', '.join(SUFFIXES)}), or a folder of parquet files or with a metadata.csv"
        raise DataError(path, what, remedy)
    splits = find_splits(path)
    if subset is None:
        if len(splits) > 1:
            raise DataError(path, f"holds ready splits: {', '.join(splits)}", "choose one by subset")
        return files
    name = splits.get(subset, subset)
    chosen = [file for file in files if _split_name(file, path) == name]
    if not chosen:
        raise DataError(path, f"has no subset '{subset}'", nearest(subset, list(splits)) or "leave subset out")
    return chosen


class _Stored:
    """The rows of files that hold images."""

    def __init__(self, table: Table, files: Sequence[Path]) -> None:
        columns = (table.image_column, table.label_column)
        if files[0].suffix.lower() == ".arrow":
            opened = open_arrow(files, *columns)
            rows = ArrowRows.of_files(opened)
        else:
            opened = open_parquet(files, *columns)
            rows = ParquetRows([chunk for each in opened for chunk in each.images])
            _note_slowness(table.path, rows)
        labels = _joined(opened)
        self.classes, self.labels = _encoded(table, labels, opened[0].names, rows.key)
        self.rows: ParquetRows | ArrowRows = rows

    def read(self, index: int) -> tuple[bytes, str]:
        return self.rows.read(index)

    def key(self, index: int) -> str:
        return self.rows.key(index)

    def file(self, index: int) -> None:
        del index


def _note_slowness(path: Path, rows: ParquetRows) -> None:
    """Say once a table, and not again in worker processes, that it is slow to read, and what to do."""
    slowness = None if path in _NOTED or multiprocessing.parent_process() else rows.slowness()
    if slowness:
        _NOTED.add(path)
        logging.getLogger("vitlab").warning(
            "%s: %s; `vitlab data pack` makes shards of it, where every image is read alone", path, slowness
        )


def _encoded(
    table: Table, column: Column, names: tuple[str, ...] | None, row: Callable[[int], str]
) -> tuple[tuple[str, ...], Labels]:
    """Return class names and labels, which are none where the table is opened without."""
    if table.label_column is None and column.counts is not None and len(column.counts):
        return (), np.full((len(column.counts), 1), NONE)
    return encode(str(table), column, names, row)


def _joined(files: Sequence[Opened]) -> Column:
    """Return the label columns of `files` as one."""
    check_alike(files)
    counts = [each.labels.counts for each in files if each.labels.counts is not None]
    return Column(np.concatenate([each.labels.values for each in files]), np.concatenate(counts) if counts else None)


class _FileNames:
    """The rows of CSV or JSONL files that name image files."""

    def __init__(self, table: Table, files: Sequence[Path]) -> None:
        self._root = table.path if table.path.is_dir() else table.path.parent
        self._names: list[str] = []
        rows: list[str] = []
        cells, unlabelled = Cells(), table.label_column is None
        for file in files:
            for number, values in enumerate(_rows(file)):
                row = f"{file}:{number}"
                image = first_of(values, table.image_column, "file_name", "path")
                label = SEVERAL if table.label_column is None else first_of(values, table.label_column, SEVERAL)
                check_columns(row, [name for name in values if name is not None], image, *[label] * (not unlabelled))
                self._names.append((file.parent / inside(values[image], row)).relative_to(self._root).as_posix())
                cell = [] if unlabelled else values[label]
                if not unlabelled and file.suffix.lower() == ".csv":
                    cell = split_cell(cell, row, label, table.separator)
                cells.add(cell, row, label)
                rows.append(row)
        self.classes, self.labels = _encoded(table, cells.column(), None, rows.__getitem__)

    def read(self, index: int) -> tuple[bytes, str]:
        return read_file(self.file(index)), self.key(index)

    def key(self, index: int) -> str:
        return printable(self._names[index])

    def file(self, index: int) -> Path:
        return self._root / self._names[index]


def _rows(file: Path) -> Iterator[Mapping[str | None, Any]]:
    """Yield the rows of a CSV or JSONL file; under None are the cells that are beyond the columns of CSV."""
    with reading(file), file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix.lower() == ".csv":
            yield from csv.DictReader(lines)
            return
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            values = json.loads(line)
            if not isinstance(values, dict):
                raise DataError(f"{file}:{number}", "holds no JSON object in this line", "write {...} on every line")
            yield cast(dict[str | None, Any], values)
