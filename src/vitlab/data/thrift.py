"""Thrift's compact protocol, in which parquet writes its headers and footers: structs of numbered fields."""

from typing import Any


def read_struct(data: bytes) -> tuple[dict[int, Any], int]:
    """Return the struct that `data` begins with, as field numbers to values, and its length; of texts nothing is kept.

    Raises:
        IndexError: it is cut short.
        ValueError: it makes no sense.
    """
    return _struct(data, 0, 0)


def _struct(data: bytes, position: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > 8:
        raise ValueError("a header is nested too deep")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head = data[position]
        position += 1
        if head == 0:
            return fields, position
        if head >> 4:
            number += head >> 4
        else:
            number, position = _zigzag(data, position)
        fields[number], position = _value(data, position, head & 15, depth)


def _value(data: bytes, position: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true, false
        return kind == 1, position
    if kind == 3:  # a byte
        return data[position], position + 1
    if kind in (4, 5, 6):  # integers
        return _zigzag(data, position)
    if kind == 7:  # a double, which no header has
        return None, position + 8
    if kind == 8:  # bytes: of the statistics, names
        length, position = varint(data, position)
        if position + length > len(data):
            raise IndexError
        return None, position + length
    if kind in (9, 10):  # a list or set
        head = data[position]
        count, position = (head >> 4, position + 1) if head >> 4 != 15 else varint(data, position + 1)
        if depth > 8 or count > len(data) - position:
            raise ValueError("a header has a list that is too long")
        items: list[Any] = []
        for _ in range(count):
            start = position
            item, position = _value(data, position, head & 15, depth + 1)
            position = max(position, start + 1)  # a truth value in a list has a byte of its own
            items.append(item)
        return items, position
    if kind == 12:
        return _struct(data, position, depth + 1)
    raise ValueError(f"a header has a field of unknown kind {kind}")


def varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position`, of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a number has too many bytes")


def _zigzag(data: bytes, position: int) -> tuple[int, int]:
    value, position = varint(data, position)
    return (value >> 1) ^ -(value & 1), position
