"""TensorFlow's record files: where every example is, and what is in it.

A file is a sequence of records: length (8 bytes, little-endian), its checksum (4), content, its checksum (4). The content is a
protocol-buffer message `Example`: a map from names to lists of bytes or of integers. The checksums (CRC-32C) are not compared.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """From where to where in a file."""

    start: int
    end: int


def records(data: memoryview) -> Iterator[Span]:
    """Yield where every record of a file is.

    Raises:
        ValueError: the file ends inside a record.
    """
    position = 0
    while position < len(data):
        if position + 12 > len(data):
            raise ValueError("it ends inside a record")
        (length,) = struct.unpack_from("<Q", data, position)
        if length > len(data) - position - 16:
            raise ValueError("it ends inside a record")
        yield Span(position + 12, position + 12 + length)
        position += 16 + length


def features(data: memoryview, record: Span) -> dict[str, Span | int]:
    """Return the features of a record by name: where the bytes are, or the number; of a list its first, of others none.

    Raises:
        ValueError: the record is no `Example`.
    """
    found: dict[str, Span | int] = {}
    for number, features_at in _fields(data, record):
        if number != 1 or isinstance(features_at, int):
            continue
        for _, entry in _fields(data, features_at):
            if isinstance(entry, int):
                raise ValueError("a record is no Example")
            parts = dict(_fields(data, entry))
            name, value = parts.get(1), parts.get(2)
            if not isinstance(name, Span) or not isinstance(value, Span):
                raise ValueError("a record is no Example")
            for kind, items in _fields(data, value):
                first = _first(data, kind, items)
                if first is not None:
                    found[bytes(data[name.start : name.end]).decode("utf-8", "replace")] = first
    return found


def _first(data: memoryview, kind: int, items: Span | int) -> Span | int | None:
    """Return the first of a list of bytes (kind 1) or integers (kind 3, one by one or packed)."""
    if isinstance(items, int) or kind not in (1, 3):
        return None
    for _, value in _fields(data, items):
        if kind == 3 and isinstance(value, Span):
            return _varint(data, value.start, value.end)[0]
        return value
    return None


def _fields(data: memoryview, span: Span) -> Iterator[tuple[int, Span | int]]:
    """Yield the number and the value of every field of a message: an integer, or where its bytes are."""
    position = span.start
    while position < span.end:
        tag, position = _varint(data, position, span.end)
        if tag & 7 == 0:
            value, position = _varint(data, position, span.end)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, position = _varint(data, position, span.end)
            if length > span.end - position:
                raise ValueError("a record is cut short")
            yield tag >> 3, Span(position, position + length)
            position += length
        else:
            raise ValueError("a record is no Example")


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Return an integer of seven bits a byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a record is cut short")
