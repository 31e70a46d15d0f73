"""Arrow: the rows of memory-mapped Arrow files, as `datasets` keeps them; a row is found without reading another."""

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc

from vitlab.data.column import SEVERAL, from_arrow, names_in, no_labels
from vitlab.data.path import printable, read_beside
from vitlab.data.schema import Opened, check_columns, check_images, first_of, reading
from vitlab.errors import ImageError

_ipc: Any = pyarrow.ipc  # the stubs of pyarrow are incomplete
_compute: Any = pyarrow.compute
_types: Any = pa.types

_END = b"\xff\xff\xff\xff\0\0\0\0"


def open_arrow(files: Sequence[Path], image_column: str, label_column: str | None) -> list[Opened]:
    """Return `files`, in the stream format that `datasets` writes, mapped into memory; without a `label_column` no labels.

    Raises:
        DataError: one cannot be read, is cut short, is compressed, or lacks a column or has one of another type.
    """
    return [_open(file, image_column, label_column) for file in files]


def _open(file: Path, image_column: str, label_column: str | None) -> Opened:
    with reading(file):
        content: Any = pa.memory_map(str(file))
        schema = _ipc.open_stream(content).schema
        names: list[str] = schema.names
    label = None if label_column is None else first_of(names, label_column, SEVERAL)
    columns = [image_column, *([label] if label else [])]
    check_columns(file, names, *columns)
    check_images(file, schema, image_column)
    with reading(file):
        _check_messages(content)
        content.seek(0)
        wanted = sorted(schema.get_field_index(name) for name in columns)
        rows = _ipc.open_stream(content, options=_ipc.IpcReadOptions(included_fields=wanted)).read_all()
        rows.validate(full=True)  # else an offset may lead out of the file
        if label is None:
            return Opened(file, rows[image_column], no_labels(len(rows)), None)
        return Opened(file, rows[image_column], from_arrow(rows[label], file, label), names_in(schema.metadata, label))


def _check_messages(content: Any) -> None:
    """Refuse a stream without its end, or with parts that must be decoded, which no row can be read from alone."""
    content.seek(max(0, content.size() - len(_END)))
    if content.read() != _END:
        raise ValueError("it is cut short: its end is missing")
    content.seek(0)
    messages = _ipc.MessageReader.open_stream(content)
    for message in messages:
        if message.type not in ("schema", "record batch") or _is_compressed(message.metadata.to_pybytes()):
            raise ValueError("it is compressed or has dictionaries: save it again with datasets.save_to_disk")


def _is_compressed(message: bytes) -> bool:
    """Return whether `message`, a flatbuffer of the type Message, has a record batch that names a compression."""
    header = _field(message, *struct.unpack_from("<I", message), number=2)
    return header is not None and _field(message, header, number=3) is not None


def _field(message: bytes, table: int, number: int) -> int | None:
    """Return where the table in a field of the flatbuffer table at `table` is; None where there is no such field."""
    index = table - struct.unpack_from("<i", message, table)[0]
    (size,) = struct.unpack_from("<H", message, index)
    (offset,) = struct.unpack_from("<H", message, index + 4 + 2 * number) if 4 + 2 * number < size else (0,)
    return table + offset + struct.unpack_from("<I", message, table + offset)[0] if offset else None


class ArrowRows:
    """The images in columns that follow each other; `key` names a row by the number of its column and its place there.

    An image is the bytes in a row, or the file that its path names: `find` says where that is.
    """

    def __init__(
        self, columns: Sequence[Any], key: Callable[[int, int], str], find: Callable[[str, int, str], bytes]
    ) -> None:
        self._bytes = [_part(column, "bytes") for column in columns]
        self._paths = [_part(column, "path") for column in columns]
        self._starts = [0, *accumulate(len(column) for column in columns)]
        self._key, self._find = key, find

    @classmethod
    def of_files(cls, opened: Sequence[Opened]) -> "ArrowRows":
        """Return the rows of files; a path is relative to the folder of its file, and inside it."""
        return cls(
            [each.images for each in opened],
            lambda place, row: f"{printable(opened[place].file.name)}:{row}",
            lambda name, place, key: read_beside(opened[place].file.parent, name, key),
        )

    def key(self, index: int) -> str:
        """Return the name of a row."""
        return self._key(*self._locate(index))

    def read(self, index: int) -> tuple[bytes, str]:
        """Return the image in a row, and the key of the row.

        Raises:
            ImageError: the row holds no image, or the file that it names cannot be read.
        """
        place, row = self._locate(index)
        key = self._key(place, row)
        data = self._bytes[place][row].as_py()
        if data:
            return data, key
        name = None if self._paths[place] is None else self._paths[place][row].as_py()
        if not name:
            raise ImageError(key, "holds no image in this row", "remove the row")
        return self._find(name, place, key), key

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self._starts[-1]:
            raise IndexError(index)
        place = bisect_right(self._starts, index) - 1
        return place, index - self._starts[place]


def _part(column: Any, name: str) -> Any:
    """Return a field of a column of structs; a column of bytes is its own "bytes"."""
    if not _types.is_struct(column.type):
        return column if name == "bytes" else None
    return _compute.struct_field(column, name) if column.type.get_field_index(name) >= 0 else None
