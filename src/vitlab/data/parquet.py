"""Parquet: the rows of any number of parquet files. Opening reads footers and the label column; an image costs its page."""

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from vitlab.data.column import SEVERAL, from_arrow, names_in, no_labels
from vitlab.data.footer import find_chunks
from vitlab.data.pages import DAMAGE, DICTIONARY, Chunk, Page, Pages, Value, find_pages, read_page
from vitlab.data.path import printable, read_beside
from vitlab.data.schema import Opened, check_columns, check_images, first_of, reading
from vitlab.errors import DataError, ImageError

_parquet: Any = pyarrow.parquet  # the stubs of pyarrow are incomplete
_types: Any = pa.types

CACHE_BYTES = 512 << 20
"""Of decoded pages that a process keeps."""
_VALUE_BYTES = 200  # that Python adds to each
_FIRST, _KIND = Page._fields.index("first"), Page._fields.index("kind")
_MAX_ROWS_PER_BYTE, _FEW_ROWS = 8, 1 << 20  # a label has a bit at least
_SLOW = 32  # times an image's size is what a page may have
_THREADS = 8  # that open files: on a network they wait for its answers


def open_parquet(files: Sequence[Path], image_column: str, label_column: str | None) -> list[Opened]:
    """Return what each of `files` says of itself; no image is read, and without a `label_column` no label.

    Raises:
        DataError: one cannot be read, lacks a column, or has one of another type.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(partial(_open, image_column=image_column, label_column=label_column), files))


def _open(file: Path, image_column: str, label_column: str | None) -> Opened:
    with reading(file):
        metadata: Any = _parquet.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    label = None if label_column is None else first_of(schema.names, label_column, SEVERAL)
    check_columns(file, schema.names, image_column, *([label] if label else []))
    nested = check_images(file, schema, image_column)
    size = file.stat().st_size
    if metadata.num_rows > max(_FEW_ROWS, size * _MAX_ROWS_PER_BYTE):
        raise DataError(file, f"claims to hold {metadata.num_rows:,} rows in {size:,} bytes", "fetch it again")
    with reading(file):
        images = find_chunks(file, metadata.schema, f"{image_column}.bytes" if nested else image_column)
    if label is None:
        return Opened(file, images, no_labels(sum(chunk.rows for chunk in images)), None)
    # Names in a dictionary stay there: a name of a megabyte that a million rows have would be a terabyte.
    paths = (metadata.schema.column(place).path for place in range(metadata.num_columns))
    names = [path for path in paths if path.split(".")[0] == label] if _is_text(schema.field(label).type) else None
    with (
        reading(file),
        _parquet.ParquetFile(file, metadata=metadata, read_dictionary=names, memory_map=True) as reader,
    ):
        labels = _read_labels(reader, label)
        labels.validate(full=True)  # else a place in a dictionary may lead out of it
    if len(labels) != sum(chunk.rows for chunk in images):
        raise DataError(file, f"holds {len(labels):,} labels, and another number of images", "fetch it again")
    with reading(file):
        return Opened(file, images, from_arrow(labels, file, label), names_in(schema.metadata, label))


def _read_labels(reader: Any, column: str) -> Any:
    """Return a column, read one row group at a time: pyarrow has no lists of names from more than one dictionary."""
    # A thread of pyarrow would not survive the fork of a worker process, so none is used.
    groups = range(reader.metadata.num_row_groups)
    parts = [reader.read_row_group(group, columns=[column], use_threads=False) for group in groups]
    return pa.concat_tables(parts or [reader.read(columns=[column], use_threads=False)]).column(0)


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if _types.is_list(kind) or _types.is_large_list(kind) else kind
    return _types.is_string(kind) or _types.is_large_string(kind)


class ParquetRows:
    """The rows of parquet files in order: an image is the bytes in a row, or the file that its path names.

    Such a path is relative to the folder of the parquet file, and inside it.

    A value is read from its page. The pages read last are kept, up to `CACHE_BYTES` in a process: in all as many times
    that as there are workers. Of all else a process keeps some 400 bytes a row group and 100 a page that it came across.
    """

    def __init__(self, images: Sequence[Chunk]) -> None:
        self._chunks = images
        self._starts = [0, *accumulate(chunk.rows for chunk in images)]
        self._paths: dict[Path, list[Chunk]] = {}
        self._pages: dict[tuple[int, str], Pages] = {}
        self._cache: dict[tuple[int, str, int], tuple[int, list[Value]]] = {}
        self._cached = 0

    def key(self, index: int) -> str:
        """Return the name of a row: its file, and its number in there."""
        group = self._group(index)
        first = group - self._chunks[group].group  # row group of the file
        return f"{printable(self._chunks[group].file.name)}:{index - self._starts[first]}"

    def read(self, index: int) -> tuple[bytes, str]:
        """Return the image in a row, and the key of the row.

        Raises:
            ImageError: the row holds no image; its page, or the file that it names, cannot be read.
        """
        group = self._group(index)
        key, row, chunk = self.key(index), index - self._starts[group], self._chunks[group]
        try:
            data = self._value(group, chunk, row)
            name = None if data else self._path(group, row)
        except DAMAGE as error:
            reason = " ".join(str(error).split()) or "its pages make no sense"
            raise ImageError(key, f"cannot be read from {chunk.file} ({reason})", "fetch the file again") from None
        if data:
            return data, key
        if not name:
            raise ImageError(key, "holds no image in this row", "remove the row")
        return read_beside(chunk.file.parent, name.decode(errors="replace"), key), key

    def slowness(self) -> str | None:
        """Return why reading in shuffled order is slow, None where it is not: told by the sizes of the first pages.

        Decoding a page costs some 0.3 ms a mebibyte, an image some 30 ms a mebibyte of its file: pages of a hundred images take
        as long as the images themselves.
        """
        total = sum(chunk.full_size for chunk in self._chunks)
        chunk = next((chunk for chunk in self._chunks if chunk.rows), None)
        if chunk is None or total <= CACHE_BYTES:
            return None
        try:
            pages = find_pages(chunk)
        except DAMAGE:
            return None  # reading it will say so
        image, page = chunk.full_size // chunk.rows, int(pages[:, Page._fields.index("full_size")].max())
        if page < _SLOW * image:
            return None
        return (
            f"its pages hold {_amount(page)} and its images {_amount(image)}, so that shuffled reading decodes {page // image} "
            f"times what it needs, and {_amount(total)} do not fit into the {_amount(CACHE_BYTES)} that a process keeps"
        )

    def _group(self, index: int) -> int:
        if not 0 <= index < self._starts[-1]:
            raise IndexError(index)
        return bisect_right(self._starts, index) - 1

    def _path(self, group: int, row: int) -> bytes | None:
        """Return the path in a row, None where there is none; where it is stored is looked up when the first is asked for."""
        column, _, leaf = self._chunks[group].column.rpartition(".")
        file = self._chunks[group].file
        if leaf != "bytes" or not column:
            return None
        if file not in self._paths:
            with _parquet.ParquetFile(file) as reader:
                names = reader.schema_arrow.field(column).type
                stored = names.get_field_index("path") >= 0
                self._paths[file] = find_chunks(file, reader.metadata.schema, f"{column}.path") if stored else []
        found = self._paths[file]
        return self._value(group, found[self._chunks[group].group], row) if found else None

    def _value(self, group: int, chunk: Chunk, row: int) -> bytes | None:
        pages = self._pages.get((group, chunk.column))
        if pages is None:
            pages = self._pages[group, chunk.column] = find_pages(chunk)
        place = (
            int(np.searchsorted(pages[:, _FIRST], row, side="right")) - 1
        )  # after a dictionary, whose first row is 0
        value = self._page(group, chunk, pages, place)[row - int(pages[place, _FIRST])]
        if isinstance(value, int):
            dictionary = self._page(group, chunk, pages, 0) if pages[0, _KIND] == DICTIONARY else []
            value = dictionary[value]
        return bytes(value) if isinstance(value, memoryview) else None

    def _page(self, group: int, chunk: Chunk, pages: Pages, place: int) -> list[Value]:
        """Return the values of a page; of those kept, the ones used longest ago make room."""
        name = (group, chunk.column, place)
        kept = self._cache.pop(name, None)
        if kept is None:
            page = Page(*pages[place].tolist())
            values = read_page(chunk, page)
            held = sum(len(value) for value in values if isinstance(value, memoryview))
            size = max(page.full_size, held) + _VALUE_BYTES * page.rows
            self._cached += size
            while self._cache and self._cached > CACHE_BYTES:
                self._cached -= self._cache.pop(next(iter(self._cache)))[0]
            kept = size, values
        self._cache[name] = kept
        return kept[1]


def _amount(count: int) -> str:
    """Return a number of bytes for people."""
    unit = next(unit for unit in (30, 20, 10, 0) if count >> unit or not unit)
    return f"{count / (1 << unit):.3g} {({30: 'GiB', 20: 'MiB', 10: 'KiB', 0: 'bytes'})[unit]}"
