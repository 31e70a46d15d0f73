"""MATLAB 5 files: the numeric arrays in them, and nothing else; no object in such a file is ever made.

The format is that of "MAT-File Format" (The MathWorks), chapter 1: elements of a type, a size and content, some of them
compressed by zlib.
"""

import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.layouts.examples import missing
from vitlab.errors import DataError

MAX_BYTES = 1 << 30
"""Of a file, and of what one element of it may unpack to."""
_STORED = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_MAX_RATIO, _SMALL = 30, 1 << 26  # of all that is unpacked to the file; labels alone are a hundred times smaller there


def read_mat(path: Path, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return those of the arrays `wanted` that a MATLAB file has, in MATLAB's shapes; cells, structures and text are left out.

    Raises:
        DataError: the file is not there, too large, of another version, or damaged.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(path, f"has more than {MAX_BYTES:,} bytes", "fetch it again")
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise missing(path, error) from None
    if len(data) < 128 or bytes(data[124:128]) != b"\x00\x01IM":
        raise DataError(path, "is no MATLAB 5 file (little-endian)", "fetch it again")
    try:
        room = min(max(_SMALL, _MAX_RATIO * len(data)), 2 * MAX_BYTES)
        return _Reader(wanted, room).arrays(data[128:])
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise DataError(path, f"is damaged ({error})", "fetch it again") from None


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the content of every element."""
    position = 0
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, position)
        if kind >> 16:  # four bytes or fewer share the tag's eight
            kind, size, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start = position + 8
            end = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(data):
            raise ValueError("it ends inside an element")
        yield kind, data[start : start + size]
        position = end


class _Reader:
    """Reads arrays into `room` bytes, which is for all of a file: what it unpacks to, and what is made wider."""

    def __init__(self, wanted: Collection[str], room: int) -> None:
        self._wanted, self._room = wanted, room

    def arrays(self, data: memoryview, *, inner: bool = False) -> dict[str, NDArray[Any]]:
        """Return the arrays in some elements by name."""
        found: dict[str, NDArray[Any]] = {}
        for kind, content in _elements(data):
            if kind == _COMPRESSED and not inner:
                inflate = zlib.decompressobj()
                inflated = inflate.decompress(content, max(1, min(self._room, MAX_BYTES)))
                if not inflate.eof:
                    raise ValueError("an element is cut short, or unpacks to too much")
                self._take(len(inflated))
                found |= self.arrays(memoryview(inflated), inner=True)
            elif kind == _MATRIX:
                found |= self._array(content)
        return found

    def _array(self, content: memoryview) -> dict[str, NDArray[Any]]:
        """Return the array of a matrix by its name, nothing if it is not wanted or not numeric."""
        flags, shape, name, *rest = [part for _, part in zip(range(4), _elements(content), strict=False)]
        number, text = struct.unpack_from("<I", flags[1])[0] & 0xFF, bytes(name[1]).decode("ascii", "replace")
        if number not in _CLASSES or not rest or text not in self._wanted:
            return {}
        stored, values = rest[0]
        if stored not in _STORED:
            raise ValueError(f"values of type {stored}")
        array, kind = np.frombuffer(values, _STORED[stored]), np.dtype(_CLASSES[number])
        if array.dtype != kind:
            self._take(array.size * kind.itemsize)
        dims = np.frombuffer(shape[1], "<i4").tolist()
        return {text: array.reshape(dims, order="F").astype(kind, copy=False)}

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise ValueError("it unpacks to too much")
