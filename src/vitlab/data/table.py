"""Table: examples as rows of parquet files (the Hugging Face layout), or of a CSV or JSONL file beside the images."""

import csv
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from pydantic import Field

from vitlab.config import nearest
from vitlab.data.column import SEVERAL, Cells, Column, encode, from_arrow, names_in, split_cell
from vitlab.data.labels import label_at
from vitlab.data.path import ALIASES, DataPath, name_splits, printable, read_file
from vitlab.data.source import Example
from vitlab.errors import DataError, ImageError

_parquet: Any = pyarrow.parquet  # the stubs of pyarrow are incomplete
_types: Any = pa.types

SUFFIXES = (".parquet", ".csv", ".jsonl")
_CACHE_BYTES = 2 << 30  # of decoded row groups that a process keeps
# In a folder the first of these that matches anything is the table, so that labels never come from two places.
_PATTERNS = ("*.parquet", "*/*.parquet", "metadata.jsonl", "metadata.csv", "*/metadata.jsonl", "*/metadata.csv")


class Table(DataPath):
    """Rows of an image and its label, or its labels.

    `path` is a parquet, CSV or JSONL file, or a folder of parquet files or with a metadata.csv or metadata.jsonl. In a
    folder, `subset` chooses the files of one split, told by the first word of their names ("train-00000-of-00004") or
    by their sub-folder (train/metadata.csv); "val" also finds "valid", "validation" and "dev".

    Parquet: `image_column` holds the bytes of image files, or structs with `bytes`. CSV and JSONL: `image_column`, or
    `file_name` or `path` where there is no such column, holds the path of an image file relative to the table's folder,
    and inside it. `label_column`, or `labels` where there is no such column, holds class names, or integers whose names
    may be in the `huggingface` key of a parquet schema. Without names in the schema the classes are the labels that
    occur, sorted.

    A column of lists (parquet, JSONL) gives an image any number of labels, also none. In CSV that is the column called
    `labels`, with "|" between them, or any column where a `separator` is given; "|" in any other is refused.

    A row group of a parquet file is decoded when one of its rows is first read, and kept, up to 2 GiB of them in a
    process. A pickled table holds its settings only, so worker processes copy no data.

    Raises, on first use:
        DataError: there is no such file, subset or column; a file cannot be read; a label is missing, of another type
            than the others or without a class name; lists are zeros and ones instead of class numbers; there are no
            rows, or only one class; a file name leads out of the table's folder.
    """

    type: Literal["Table"] = "Table"
    image_column: str = "image"
    label_column: str = "label"
    separator: Annotated[str, Field(min_length=1)] | None = None

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        super().__init__(path, **fields)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": self._settings()}

    @cached_property
    def listing(self) -> "_Parquet | _FileNames":
        """The labels, the class names, and how to read an image."""
        files = _files(self.path, self.subset)
        return (_Parquet if files[0].suffix.lower() == ".parquet" else _FileNames)(self, files)

    def read(self, index: int) -> Example:
        """Return the row at `index`; its key is its file and row number, or the file name in the row.

        Raises:
            ImageError: the row holds no image, or its file cannot be read.
        """
        data, key = self.listing.read(int(self.indices[index]))
        return Example(data, label_at(self.labels, index), key)


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
        found = [file for file in path.glob(pattern) if not any(part.startswith(".") for part in file.parts[-2:])]
        if found:
            return sorted(found)
    return []


def _split_name(file: Path, root: Path) -> str | None:
    """Return what `file` of the folder `root` calls its split, if it is one."""
    if file == root:
        return None
    words = [re.split(r"[-_.]", file.name)[0]] + [file.parent.name] * (file.parent != root)
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


class _Parquet:
    """The rows of parquet files."""

    def __init__(self, table: Table, files: Sequence[Path]) -> None:
        self._files = files
        self._image = table.image_column
        self._metadata: list[Any] = []
        self._groups: list[tuple[int, int, int]] = []  # file, row group in it, first row of that
        self._starts = [0]  # of the row groups, over all files
        self._cache: dict[int, Any] = {}
        labels: list[Column] = []
        names: dict[tuple[str, ...] | None, Path] = {}
        for file in files:
            metadata, column, classes = _describe(file, table)
            first = self._starts[-1]
            for group in range(metadata.num_row_groups):
                self._groups.append((len(self._metadata), group, self._starts[-1] - first))
                self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
            self._metadata.append(metadata)
            labels.append(column)
            names.setdefault(classes, file)
        if len(names) > 1 or len({(part.values.dtype, part.counts is None) for part in labels}) > 1:
            raise DataError(table.path, "holds files with labels of different types or classes", "convert them")
        counts = [part.counts for part in labels if part.counts is not None]
        column = Column(np.concatenate([part.values for part in labels]), np.concatenate(counts) if counts else None)
        self.classes, self.labels = encode(str(table), column, next(iter(names)), self._key)

    def read(self, index: int) -> tuple[bytes, str]:
        number = bisect_right(self._starts, index) - 1
        data = self._group(number)[index - self._starts[number]].as_py()
        if not data:
            raise ImageError(self._key(index), f"column '{self._image}' holds no image in this row", "remove the row")
        return data, self._key(index)

    def _key(self, index: int) -> str:
        number = bisect_right(self._starts, index) - 1
        file, _, row = self._groups[number]
        return f"{printable(self._files[file].name)}:{row + index - self._starts[number]}"

    def _group(self, number: int) -> Any:
        """Return the images of a row group; of those kept, the ones used longest ago make room."""
        images = self._cache.pop(number, None)
        if images is None:
            images = self._load(number)
            used = sum(group.nbytes for group in self._cache.values())
            while self._cache and used + images.nbytes > _CACHE_BYTES:
                used -= self._cache.pop(next(iter(self._cache))).nbytes
        self._cache[number] = images
        return images

    def _load(self, number: int) -> Any:
        place, group, _ = self._groups[number]
        file = self._files[place]
        with _reading(file), _parquet.ParquetFile(file, metadata=self._metadata[place], memory_map=True) as reader:
            column = reader.read_row_group(group, columns=[self._image], use_threads=False).column(0)
        chunks = [chunk.field("bytes") if _types.is_struct(chunk.type) else chunk for chunk in column.chunks]
        return chunks[0] if len(chunks) == 1 else pa.chunked_array(chunks)


def _describe(file: Path, table: Table) -> tuple[Any, Column, tuple[str, ...] | None]:
    """Return what a parquet file says of itself, its label column, and the class names in its schema."""
    with _reading(file):
        metadata = _parquet.read_metadata(file)
        schema: Any = metadata.schema.to_arrow_schema()
    label = _named(schema.names, table.label_column, SEVERAL)
    _check_columns(file, schema.names, table.image_column, label)
    kind: Any = schema.field(table.image_column).type
    content = kind.field("bytes").type if _types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    if not (_types.is_binary(content) or _types.is_large_binary(content)):
        what = f"column '{table.image_column}' holds {kind}, not the bytes of image files"
        raise DataError(file, what, "choose another image_column, or convert it")
    with _reading(file), _parquet.ParquetFile(file, metadata=metadata, memory_map=True) as reader:
        # A thread of pyarrow would not survive the fork of a worker process, so none is used.
        column = reader.read(columns=[label], use_threads=False).column(0)
    with _reading(file):
        return metadata, from_arrow(column, file, label), names_in(schema.metadata, label)


class _FileNames:
    """The rows of CSV or JSONL files that name image files."""

    def __init__(self, table: Table, files: Sequence[Path]) -> None:
        self._root = table.path if table.path.is_dir() else table.path.parent
        self._names: list[str] = []
        rows: list[str] = []
        cells = Cells()
        for file in files:
            for number, values in enumerate(_rows(file)):
                row = f"{file}:{number}"
                image = _named(values, table.image_column, "file_name", "path")
                label = _named(values, table.label_column, SEVERAL)
                _check_columns(row, list(values), image, label)
                self._names.append((file.parent / _inside(values[image], row)).relative_to(self._root).as_posix())
                cell = values[label]
                if file.suffix.lower() == ".csv":
                    cell = split_cell(cell, row, label, table.separator)
                cells.add(cell, row, label)
                rows.append(row)
        self.classes, self.labels = encode(str(table), cells.column(), None, rows.__getitem__)

    def read(self, index: int) -> tuple[bytes, str]:
        return read_file(self._root / self._names[index]), printable(self._names[index])


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    with _reading(file), file.open(encoding="utf-8-sig", newline="") as lines:
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


def _inside(name: object, row: str) -> str:
    """Return `name` if it is a path that stays inside the folder it is relative to."""
    if not isinstance(name, str) or not name.strip():
        raise DataError(row, "holds no file name in this row", "add it, or remove the row")
    if re.match(r"[\\/]|[A-Za-z]:", name) or ".." in re.split(r"[\\/]", name) or "\0" in name:
        what = f"file name {name!r} leads out of the table's folder"
        raise DataError(row, what, "move the image into that folder, and name it relative to it")
    return name


def _named(names: Collection[str], *wanted: str) -> str:
    """Return the first of `wanted` that is among the columns `names`, else the last but one: the one to ask for."""
    return next((name for name in wanted if name in names), wanted[-2])


def _check_columns(where: Path | str, names: Sequence[str], *wanted: str) -> None:
    for name in wanted:
        if name not in names:
            remedy = f"choose image_column and label_column from {', '.join(names)}"
            raise DataError(where, f"has no column '{name}'", remedy)


@contextmanager
def _reading(file: Path) -> Generator[None, None, None]:
    try:
        yield
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        what = f"cannot be read as {file.suffix[1:]} ({reason})"
        raise DataError(file, what, "check its format, or fetch it again") from None
