"""The footer of a parquet file: where its columns are.

It is read here and not by pyarrow, whose description of a column ends the process where that is encrypted, or of a codec that
does not exist.
"""

from pathlib import Path
from typing import Any

from vitlab.data.pages import CODECS, ENCODINGS, Chunk
from vitlab.data.thrift import read_struct

_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
_ENCODINGS = {0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 4: "BIT_PACKED", 8: "RLE_DICTIONARY"}
_MAX_BYTES = 1 << 27  # a row group has some hundred a column

# Numbers of fields in parquet.thrift.
_ROW_GROUPS, _ENCRYPTION = 4, 8  # of the footer
_COLUMNS, _ROWS = 1, 3  # of a row group
_METADATA, _CRYPTO = 3, (8, 9)  # of a column in it
_CODINGS, _CODEC, _FULL_SIZE, _SIZE, _DATA, _DICTIONARY = 2, 4, 6, 7, 9, 11  # of the metadata of that


def find_chunks(file: Path, schema: Any, column: str) -> list[Chunk]:
    """Return where the values of `column` are in each row group of `file`, whose `schema` pyarrow has read.

    Raises:
        OSError: the file cannot be read.
        ValueError: its footer makes no sense, or the file is encrypted.
    """
    paths = [schema.column(place).path for place in range(len(schema))]
    place = paths.index(column)
    levels = schema.column(place).max_definition_level
    try:
        footer, _ = read_struct(_footer(file))
        if _ENCRYPTION in footer:
            raise ValueError("it is encrypted")
        groups = enumerate(footer[_ROW_GROUPS])
        return [_chunk(file, group, number, column, place, levels, len(paths)) for number, group in groups]
    except (LookupError, TypeError):
        raise ValueError("its footer makes no sense") from None


def _chunk(file: Path, group: Any, number: int, column: str, place: int, levels: int, columns: int) -> Chunk:
    if len(group[_COLUMNS]) != columns:
        raise ValueError(f"row group {number} has {len(group[_COLUMNS])} columns, not {columns}")
    for each in group[_COLUMNS]:
        if any(field in each for field in _CRYPTO):
            raise ValueError("a column of it is encrypted")
        if not 0 <= each[_METADATA][_CODEC] < len(_CODECS):
            raise ValueError(f"a column has codec {each[_METADATA][_CODEC]}, which does not exist")
    found = group[_COLUMNS][place][_METADATA]
    sizes = found[_SIZE], found[_FULL_SIZE]
    start = min((at for at in (found.get(_DICTIONARY), found[_DATA]) if at), default=0)
    if min(start, group[_ROWS], *sizes) < 0:
        raise ValueError("its footer has a number below zero")
    codec = _CODECS[found[_CODEC]]
    known = codec in CODECS and ENCODINGS.issuperset(_ENCODINGS.get(each, "") for each in found[_CODINGS])
    return Chunk(file, number, column, group[_ROWS], start, *sizes, codec if known else "", levels)


def _footer(file: Path) -> bytes:
    """Return the bytes of the footer, whose length stands before the last four bytes."""
    with file.open("rb") as opened:
        end = opened.seek(-8, 2)
        size = int.from_bytes(opened.read(4), "little")
        if size > min(end, _MAX_BYTES):
            raise ValueError(f"its footer claims {size:,} bytes")
        opened.seek(end - size)
        return opened.read(size)
