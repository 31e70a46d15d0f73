"""Pages: one value of a byte column of a parquet file, without decoding the row group around it.

A row group of photos is often hundreds of megabytes, of pages of about one where its writer made them so. pyarrow decodes whole
row groups; in shuffled order that is hundreds of images for one. So the pages are found and decoded here, by the format's
specification (github.com/apache/parquet-format: README, Encodings.md, src/main/thrift/parquet.thrift): data pages of versions 1
and 2, plain or with a dictionary, which is what writers use for images. A row group in another encoding is one page, decoded by
pyarrow. Files are read and not mapped: one that is cut short while it is in use is an error, and not the end of the process.
"""

import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from vitlab.data.thrift import read_struct, varint

_parquet: Any = pyarrow.parquet  # the stubs of pyarrow are incomplete
_types: Any = pa.types
_codec: Any = pa.Codec
_file: Any = pa.OSFile

CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4_RAW")
ENCODINGS = frozenset({"PLAIN", "RLE", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "BIT_PACKED"})

DAMAGE = (OSError, ValueError, TypeError, LookupError, OverflowError, struct.error, pa.ArrowException)
"""What reading a damaged page raises."""

_PLAIN, _DICTIONARIES, _RLE = 0, (2, 8), 3  # encodings
_DATA, _DATA_V2, DICTIONARY, _WHOLE = 0, 3, 2, -1  # kinds of pages; the last is a row group that pyarrow decodes
_MAX_HEADER = 1 << 20  # bytes; statistics may be in it
_MAX_PAGE = 1 << 30  # bytes; no image file has more
_BATCH = 64  # values that pyarrow decodes at a time
_MAX_RATIO, _SMALL = (
    1000,
    1 << 20,
)  # a page of more than a mebibyte that is a thousand times smaller in the file is a bomb

Value = memoryview | int | None
"""The bytes of a value, or its place in the dictionary, or null."""


class Chunk(NamedTuple):
    """The part of the column `column` ("image.bytes") in one row group: where and how it is stored."""

    file: Path
    group: int
    column: str
    rows: int
    start: int
    size: int
    full_size: int
    codec: str  # "" where its pages are not decoded here
    levels: int  # the highest definition level, which is that of a value that is there


class Page(NamedTuple):
    """A page of a chunk: its kind, its first row, and where and how its content is stored."""

    kind: int
    first: int
    rows: int
    start: int
    size: int
    full_size: int
    encoding: int
    levels_size: int  # bytes of levels in version 2, where they are not compressed; 0 in version 1
    compressed: int
    checksum: int  # CRC-32 of the content; -1: none


Pages = NDArray[np.int64]
"""The pages of a chunk, int64 [pages, fields of Page]; a dictionary is the first, and its rows are none of the table's."""


def find_pages(chunk: Chunk) -> Pages:
    """Return the pages of `chunk`, from their headers alone.

    Raises:
        DAMAGE: the headers make no sense, promise other rows than the file does, or a page too large to be meant.
    """
    if not chunk.codec:
        if not _meant(chunk.size, chunk.full_size):
            raise ValueError(
                f"row group {chunk.group} holds {chunk.full_size:,} bytes that can only be decoded as a whole"
            )
        return np.array([Page(_WHOLE, 0, chunk.rows, 0, 0, chunk.full_size, 0, 0, 0, -1)], np.int64)
    pages: list[Page] = []
    rows, position, end = 0, chunk.start, chunk.start + chunk.size
    with chunk.file.open("rb", buffering=0) as file:
        while position < end:
            header, length = _header(file, position, min(end - position, _MAX_HEADER))
            page = _page(header, position + length, rows)
            if page.size < 0 or page.rows < 0 or page.start + page.size > end:
                raise ValueError("a page ends beyond its row group")
            if not _meant(page.size, page.full_size):
                raise ValueError(f"a page of {page.size:,} bytes claims to hold {page.full_size:,}")
            rows += page.rows * (page.kind != DICTIONARY)
            position = page.start + page.size
            if page.kind in (_DATA, _DATA_V2) or (page.kind == DICTIONARY and not pages):
                pages.append(page)
    if rows != chunk.rows:
        raise ValueError(f"its pages hold {rows:,} rows, not {chunk.rows:,}")
    return np.array(pages, np.int64).reshape(-1, len(Page._fields))


def _meant(size: int, full_size: int) -> bool:
    """Return whether so many bytes in a file may hold so many."""
    return 0 <= full_size <= max(_SMALL, min(_MAX_PAGE, size * _MAX_RATIO))


def read_page(chunk: Chunk, page: Page) -> list[Value]:
    """Return the values of a page.

    Raises:
        DAMAGE: the content is not what the headers say.
    """
    if page.kind == _WHOLE:
        return _whole(chunk)
    content, levels = _content(chunk, page)
    if page.kind == DICTIONARY:
        return _plain(content, page.rows)
    defined = np.ones(page.rows, bool)
    if chunk.levels:
        if page.kind == _DATA:
            (length,) = struct.unpack_from("<I", content)
            levels, content = content[4 : 4 + length], content[4 + length :]
        defined = _hybrid(levels, chunk.levels.bit_length(), page.rows) == chunk.levels
    count = int(defined.sum())
    if page.encoding == _PLAIN:
        values = _plain(content, count)
    elif page.encoding in _DICTIONARIES:
        values = _hybrid(content[1:], content[0], count).tolist() if count else []
    else:
        raise ValueError(f"a page has encoding {page.encoding}, which its row group does not name")
    if count == page.rows:
        return values
    given = iter(values)
    return [next(given) if there else None for there in defined.tolist()]


def _whole(chunk: Chunk) -> list[Value]:
    """Return the values of a row group, decoded by pyarrow a few at a time.

    A value stored once may be there a million times: no batch, whose values are at most as long as the row group, takes more
    than a page may have, grown by doubling, and neither do all together.
    """
    values: list[Value] = []
    size, few = 0, max(1, min(_BATCH, _MAX_PAGE // (4 * max(1, chunk.full_size))))
    with _parquet.ParquetFile(chunk.file) as reader:
        # A thread of pyarrow would not survive the fork of a worker process, so none is used.
        for batch in reader.iter_batches(few, [chunk.group], [chunk.column], use_threads=False):
            column = batch.column(0)
            column = column.field(0) if _types.is_struct(column.type) else column
            values += [value if value is None else memoryview(_bytes(value)) for value in column.to_pylist()]
            size += column.nbytes
            if size > _MAX_PAGE:
                raise ValueError(f"row group {chunk.group} unpacks to more than {_MAX_PAGE:,} bytes")
    if len(values) != chunk.rows:
        raise ValueError(f"row group {chunk.group} holds {len(values):,} rows, not {chunk.rows:,}")
    return values


def _bytes(value: bytes | str) -> bytes:
    """Return a value that pyarrow has decoded as its bytes: those of the paths beside the images come as text."""
    return value.encode() if isinstance(value, str) else value


def _page(header: dict[int, Any], start: int, first: int) -> Page:
    """Return the page whose content begins at `start`, after `header`; the numbers are those of the fields there."""
    kind, full, size, checksum = header[1], header[2], header[3], header.get(4)
    stored = (start, size, full)
    crc = -1 if checksum is None else checksum & 0xFFFFFFFF
    if kind == _DATA:
        said = header[5]
        if said[3] != _RLE:
            raise ValueError("a page has levels of a kind that is no longer in use")
        return Page(kind, first, said[1], *stored, said[2], 0, 1, crc)
    if kind == _DATA_V2:
        said = header[8]
        if said[6]:
            raise ValueError("a page of lists where single values belong")
        return Page(kind, first, said[1], *stored, said[4], said[5], int(said.get(7, True)), crc)
    return Page(kind, first, header[7][1] if kind == DICTIONARY else 0, *stored, _PLAIN, 0, 1, crc)


def _content(chunk: Chunk, page: Page) -> tuple[memoryview, memoryview]:
    """Return the content of a page, decompressed, and apart from it the levels of version 2.

    Both are in memory of pyarrow, which is used again: that of Python is given back, and half of the time went into new pages.
    """
    raw = page.levels_size
    with _file(str(chunk.file)) as file:
        file.seek(page.start)
        data = memoryview(file.read_buffer(page.size)).cast("B")
    if len(data) != page.size or not 0 <= raw <= min(page.size, page.full_size):
        raise ValueError("the file ends inside a page")
    if page.checksum >= 0 and zlib.crc32(data) != page.checksum:
        raise ValueError("a page has a wrong checksum")
    body, levels = data[raw:], data[:raw]
    if chunk.codec == "UNCOMPRESSED" or not page.compressed or not body:
        return body, levels
    size = page.full_size - raw
    if chunk.codec == "SNAPPY" and varint(body, 0)[0] != size:
        raise ValueError("a page holds another number of bytes than it claims")
    return memoryview(_codec(chunk.codec.lower()).decompress(body, decompressed_size=size)).cast("B"), levels


def _plain(content: memoryview, count: int) -> list[Value]:
    """Return `count` byte strings, each after its length; nothing is copied, and what follows is left (fastparquet pads)."""
    length_at = struct.Struct("<I").unpack_from
    values: list[Value] = []
    position = 0
    for _ in range(count):
        end = position + 4 + length_at(content, position)[0]
        values.append(content[position + 4 : end])
        position = end
    if position > len(content):
        raise ValueError("the values of a page end beyond it")
    return values


def _hybrid(data: memoryview, width: int, count: int) -> NDArray[np.int64]:
    """Return `count` numbers of `width` bits, stored as runs and bit-packed groups of eight."""
    if width > 32:
        raise ValueError(f"a page has numbers of {width} bits")
    values = np.zeros(count, np.int64)
    done, position = 0, 0
    while done < count:
        header, position = varint(data, position)
        if header & 1:
            size = (header >> 1) * width
            packed = np.frombuffer(data[position : position + min(size, 4 * (count - done + 8))], np.uint8)
            bits = np.unpackbits(packed, bitorder="little")
            number = min((header >> 1) * 8, count - done)
            if width:
                groups = bits[: number * width].reshape(number, width).astype(np.int64)
                values[done : done + number] = groups @ (np.int64(1) << np.arange(width, dtype=np.int64))
        else:
            size = (width + 7) // 8
            number = min(header >> 1, count - done)
            values[done : done + number] = int.from_bytes(data[position : position + size], "little")
        position += size
        done += number
    return values


def _header(file: Any, position: int, limit: int) -> tuple[dict[int, Any], int]:
    """Return the header at `position` as field numbers to values, and its length; it has at most `limit` bytes."""
    size = 256
    while True:
        file.seek(position)
        data = file.read(min(size, limit))
        try:
            return read_struct(data)
        except IndexError:
            if size >= limit or len(data) < size:
                raise ValueError("a page header is cut short") from None
            size *= 16
