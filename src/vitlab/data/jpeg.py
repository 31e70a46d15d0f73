"""Jpeg: a JPEG whose header has been read and checked, and of which only the part that is asked for is decoded."""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin

from vitlab.data import native
from vitlab.data.color import srgb, to_srgb
from vitlab.data.limits import Limits, check_size, damaged, no_memory
from vitlab.data.orientation import UPRIGHT, Turn, turn_of
from vitlab.data.source import Pixels
from vitlab.errors import ImageError

Part = tuple[int, int, int, int]

_MARKER = re.compile(rb"\xff+([^\0\xff])", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[^\0\xff\xd0-\xd7]", re.DOTALL)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF markers
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_START_OF_SCAN, _END_OF_IMAGE, _EXIF, _PROFILE = 0xDA, 0xD9, 0xE1, 0xE2
# libjpeg never reads past a marker: where the entropy data ends before the picture does, it counts a warning and fills the
# rest with grey. Pillow does not look at warnings, but it reports when the data runs out. So for Pillow the marker after a
# baseline scan is replaced by padding: a whole picture needs no more of it than libjpeg prefetches, at most 8 bytes.
_PADDING = bytes(16)


@dataclass(frozen=True)
class Jpeg:
    """The header of a JPEG: its size as stored, its number of components, how it is turned, and its colour profile."""

    data: bytes = field(repr=False)
    name: str
    height: int
    width: int
    components: int
    turn: Turn = UPRIGHT
    profile: bytes = field(default=b"", repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows and columns of the upright picture, and 3: the shape of `part()`."""
        rows, columns = (self.width, self.height) if self.turn.swap else (self.height, self.width)
        return rows, columns, 3

    def reduced(self, reduce: int) -> tuple[int, int]:
        """Return rows and columns of the upright picture at 1 / `reduce` scale: the last of either may be a partial pixel."""
        return -(-self.shape[0] // reduce), -(-self.shape[1] // reduce)

    def origin(self, reduce: int) -> tuple[float, float]:
        """Return where the upright picture begins (row, column) at 1 / `reduce` scale.

        A reduced picture is stored from its first corner, so a partial pixel comes first where that side is reversed.
        """
        rows, columns = self.reduced(reduce)
        row = rows - self.shape[0] / reduce if self.turn.flip_rows else 0.0
        return row, columns - self.shape[1] / reduce if self.turn.flip_columns else 0.0

    def part(self, part: Part | None = None, reduce: int = 1) -> Pixels:
        """Return `part` (left, top, right, bottom; all when None) of the upright picture at 1 / `reduce` scale: uint8 [h, w, 3].

        Raises:
            ImageError: the file is damaged as far as this part needs it.
        """
        rows, columns = self.reduced(reduce)
        left, top, right, bottom = part or (0, 0, columns, rows)
        if self.turn.flip_columns:
            left, right = columns - right, columns - left
        if self.turn.flip_rows:
            top, bottom = rows - bottom, rows - top
        stored = (top, left, bottom, right) if self.turn.swap else (left, top, right, bottom)
        try:
            if native.available() and self.components in (1, 3):
                pixels = self._coloured(native.region(self.data, stored, reduce))
            else:
                pixels = self._by_pillow(stored, reduce)
        except MemoryError:
            raise no_memory(self.name) from None
        except Exception as error:  # on damage Pillow raises a dozen classes
            what = f"JPEG file is truncated or damaged inside its picture ({_reason(error)})"
            raise damaged(self.name, what) from error
        return self.turn.apply(pixels)

    def _coloured(self, pixels: Pixels) -> Pixels:
        mode = "L" if self.components == 1 else "RGB"
        transform = to_srgb(self.profile, mode) if self.profile else None
        if transform is None:
            return pixels
        image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
        return np.array(cast(Image.Image, ImageCms.applyTransform(image, transform)))

    def _by_pillow(self, stored: Part, reduce: int) -> Pixels:
        image = _PillowJpeg(io.BytesIO(self._padded))
        if reduce > 1:
            image.draft(image.mode, (self.width // reduce, self.height // reduce))
        image.info["icc_profile"] = self.profile
        return np.array(srgb(image.crop(stored)))

    @cached_property
    def _padded(self) -> bytes:
        """`data` so that Pillow cannot complete an incomplete baseline picture."""
        frame, components = 0, 0
        for marker, start in _segments(self.data):
            if marker in _FRAMES:
                frame, components = marker, self.data[start + 5]
            elif marker == _START_OF_SCAN and frame in (0xC0, 0xC1) and self.data[start] == components:
                end = _SCAN_END.search(self.data, start)  # Huffman-coded, all in one scan
                return (self.data if end is None else self.data[: end.start()]) + _PADDING
        return self.data


class _PillowJpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader without its own look into EXIF, which warns about damage that does not concern the picture."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def read_header(data: bytes, name: str, limits: Limits) -> Jpeg:
    """Return the header of the JPEG in `data`.

    Raises:
        ImageError: it is incomplete, of a kind that is not supported, or the picture is too large or costs too much.
    """
    frame: tuple[int, int, int] | None = None  # height, width, components
    sequential = False
    exif, profiles = b"", dict[int, bytes]()
    for marker, start in _segments(data):
        length = int.from_bytes(data[start - 2 : start]) - 2
        if marker in _FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", data, start)
            check_size((width, height), name, limits)
            if precision != 8 or marker in _LOSSLESS:
                what = "lossless" if marker in _LOSSLESS else f"{precision}-bit"
                raise ImageError(name, f"is a {what} JPEG, which is not supported", "convert it to PNG or 8-bit JPEG")
            frame, sequential = (height, width, components), marker in (0xC0, 0xC1)
        elif marker == _EXIF and not exif and data.startswith(b"Exif\0\0", start):
            exif = data[start : start + length]
        elif marker == _PROFILE and data.startswith(b"ICC_PROFILE\0", start):
            profiles[data[start + 12]] = data[start + 14 : start + length]
        elif marker == _START_OF_SCAN and frame is not None:
            if not (sequential and data[start] == frame[2]) and _has_more_scans(data, start, limits.max_scans):
                what = f"is a JPEG of more than {limits.max_scans} scans"
                raise ImageError(name, what, "save it anew, or raise image_spec.limits.max_scans")
            profile = b"".join(profiles[number] for number in sorted(profiles))
            return Jpeg(data, name, *frame, turn_of(exif), profile)
    raise damaged(name, "JPEG file is truncated: it ends before its picture")


def _has_more_scans(data: bytes, start: int, most: int) -> bool:
    """Return whether more than `most` scans, the first of them at `start`, come before the end of the picture."""
    scans, position = 1, start
    while scans <= most and (found := _SCAN_END.search(data, position)):
        marker, position = found[0][1], found.end()
        if marker == _END_OF_IMAGE:
            return False
        scans += marker == _START_OF_SCAN
        position += int.from_bytes(data[position : position + 2])
    return scans > most


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, start of content) of the segments of a JPEG up to its first scan."""
    position = 2
    while found := _MARKER.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # these have no content
            continue
        if position + 10 > len(data):
            return
        yield marker, position + 2
        position += int.from_bytes(data[position : position + 2])


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
