"""Table: examples as rows of parquet files (the Hugging Face layout), or of a CSV or JSONL file beside the images."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vitlab.config import nearest
from vitlab.data.arrow import ArrowRows, open_arrow
from vitlab.data.parquet import ParquetRows, open_parquet
from vitlab.data.path import ALIASES, DataPath, inside, name_splits, printable, read_file
from vitlab.data.schema import check_alike, check_columns, reading
from vitlab.data.source import Example
from vitlab.errors import DataError

_types: Any = pa.types

SUFFIXES = (".parquet", ".arrow", ".csv", ".jsonl")
# In a folder the first of these that matches anything is the table, so that labels never come from two places.
_DEEP = tuple(folders + suffix for suffix in ("*.parquet", "*.arrow") for folders in ("", "*/", "*/*/"))
_PATTERNS = (*_DEEP, "metadata.jsonl", "metadata.csv", "*/metadata.jsonl", "*/metadata.csv")


class Table(DataPath):
    """Rows of an image and a label.

    `path` is a parquet, Arrow, CSV or JSONL file, or a folder of parquet files, of what `datasets.save_to_disk` wrote, or
    with a metadata.csv or metadata.jsonl; the files may be in its sub-folders, two deep. `subset` chooses the files of
    one split, told by the first word of their names ("train-00000-of-00294") or by a folder above them ("data/train");
    "val" also finds "valid", "validation" and "dev".

    Parquet and Arrow: `image_column` holds the bytes of image files, or structs with `bytes`, or with the `path` of a file
    inside the folder of the table's file; `label_column` holds class names, or integers whose names are in the schema's
    `huggingface` key. CSV and JSONL: `image_column`, or `file_name` where there is no such column, holds the path of an
    image file relative to the table's folder, and inside it. Without names in the schema the classes are the labels that
    occur, sorted.

    Opening reads the labels and no image. Of a parquet file a read decodes one page, of about a mebibyte, and keeps the
    last of them (see `ParquetRows`); Arrow files are mapped, and must not change while they are read. A pickled table
    holds its settings only, so worker processes copy no data.

    Raises, on first use:
        DataError: there is no such file, subset or column; a file cannot be read; a label is missing, of another type
            than the others or without a class name; there are no rows, or only one class; a file name leads out of
            the table's folder.
    """

    type: Literal["Table"] = "Table"
    image_column: str = "image"
    label_column: str = "label"

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
        data, key = self.listing.read(int(self.indices[index]))
        return Example(data, int(self.labels[index]), key)


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
    for pattern in _PATTERNS:
        found = [file.relative_to(path) for file in path.glob(pattern)]
        found = [file for file in found if not file.name.startswith("cache-") and not str(file).startswith(".")]
        if found:
            return [path / file for file in sorted(found)]
    return []


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


def _values(column: Any, file: Path, name: str) -> NDArray[Any]:
    """Return a label column: int64, or objects that are strings."""
    kind = column.type.value_type if _types.is_dictionary(column.type) else column.type
    if not (_types.is_integer(kind) or _types.is_string(kind) or _types.is_large_string(kind)):
        what = f"column '{name}' holds {column.type}, not class names or integers"
        raise DataError(file, what, "choose another label_column, or convert it")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{file}:{row}", f"column '{name}' holds no label in this row", "add it, or remove the row")
    with reading(file):
        if _types.is_integer(kind):
            return column.cast(pa.int64()).to_numpy()
        parts = [chunk if _types.is_dictionary(chunk.type) else chunk.dictionary_encode() for chunk in column.chunks]
        names = [np.array(part.dictionary.to_pylist(), object)[part.indices.to_numpy()] for part in parts]
        return np.concatenate(
            [np.empty(0, object), *names]
        )  # a name is there once, however often it stands in the file


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
        values = [_values(each.labels, each.file, table.label_column) for each in opened]
        check_alike(opened)
        self.classes, self.labels = _encode(table, np.concatenate(values), opened[0].names, rows.key)
        self.read = rows.read


class _FileNames:
    """The rows of CSV or JSONL files that name image files."""

    def __init__(self, table: Table, files: Sequence[Path]) -> None:
        self._root = table.path if table.path.is_dir() else table.path.parent
        self._names: list[str] = []
        rows: list[str] = []
        labels: list[int | str] = []
        for file in files:
            for number, values in enumerate(_rows(file)):
                row = f"{file}:{number}"
                image = table.image_column if table.image_column in values else "file_name"
                check_columns(row, list(values), image, table.label_column)
                self._names.append((file.parent / inside(values[image], row)).relative_to(self._root).as_posix())
                label = values[table.label_column]
                if label in (None, "") or not isinstance(label, str | int) or isinstance(label, bool):
                    what = f"column '{table.label_column}' holds {label!r} in this row, not a class name or an integer"
                    raise DataError(row, what, "correct it, or remove the row")
                if labels and type(label) is not type(labels[0]):
                    what = f"label {label!r} is of another type than {labels[0]!r} above"
                    raise DataError(row, what, "write all as names, or all as integers")
                rows.append(row)
                labels.append(label)
        values = np.array(labels, object if labels and isinstance(labels[0], str) else np.int64)
        self.classes, self.labels = _encode(table, values, None, rows.__getitem__)

    def read(self, index: int) -> tuple[bytes, str]:
        return read_file(self._root / self._names[index]), printable(self._names[index])


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
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
            yield cast(dict[str, Any], values)


def _encode(
    table: Table, values: NDArray[Any], names: tuple[str, ...] | None, row: Callable[[int], str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return class names and labels for the values of a label column; `row` names a row in errors."""
    if not len(values):
        raise DataError(str(table), "has no rows", "give a table with images")
    if names is not None and values.dtype == np.int64:
        outside = np.flatnonzero((values < 0) | (values >= len(names)))
        if len(outside):
            first = int(outside[0])
            what = f"{len(outside)} labels are outside the {len(names)} class names: {values[first]} in {row(first)}"
            raise DataError(str(table), what, "choose a subset that has labels, or correct them")
        classes, labels = names, values
    else:
        found = sorted(set(values.tolist()))
        place = {value: index for index, value in enumerate(found)}
        labels = np.fromiter(map(place.__getitem__, values.tolist()), np.int64, len(values))
        classes = tuple(map(str, found))
    if len(classes) < 2:
        what = f"has only one class ({', '.join(classes)}): there is nothing to learn"
        raise DataError(str(table), what, "give two or more")
    return classes, labels
