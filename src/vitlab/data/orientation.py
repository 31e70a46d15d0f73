"""Orientation: how a stored picture is turned to stand upright, from its EXIF block."""

import struct
from typing import NamedTuple

import numpy as np

from vitlab.data.source import Pixels


class Turn(NamedTuple):
    """Rows and columns of the stored picture change places first, then those of the result are reversed."""

    swap: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, pixels: Pixels) -> Pixels:
        """Return stored `pixels` (uint8 [h, w, 3]) upright."""
        if self == UPRIGHT:
            return pixels
        turned = pixels.swapaxes(0, 1) if self.swap else pixels
        turned = turned[::-1] if self.flip_rows else turned
        return np.ascontiguousarray(turned[:, ::-1] if self.flip_columns else turned)


UPRIGHT = Turn()
_TURNS = {
    2: Turn(False, False, True),
    3: Turn(False, True, True),
    4: Turn(False, True, False),
    5: Turn(True, False, False),
    6: Turn(True, False, True),
    7: Turn(True, True, True),
    8: Turn(True, True, False),
}


def turn_of(exif: bytes) -> Turn:
    """Return the turn that the first directory of `exif` asks for; none where it asks for none or cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return UPRIGHT
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return _TURNS.get(value, UPRIGHT)
    except struct.error:
        pass
    return UPRIGHT
