"""Header: the format and size of an image file, told without decoding it."""

import io
import struct
import warnings
from typing import NamedTuple

from PIL import Image

from vitlab.data.source import Example

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_NAMES = {"WEBP": "WebP", "JPEG2000": "JPEG 2000", "MPO": "JPEG"}
_GREY = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"})
_ORIENTATION = 0x0112


class Header(NamedTuple):
    """What a file says of its image: its size in pixels as a viewer shows it, and how it is stored."""

    format: str
    width: int
    height: int
    grey: bool
    turned: bool  # by an orientation tag


def read_header(example: Example) -> Header | None:
    """Return the header of an example, None where the file has none that can be read.

    Only the formats that are decoded are told, by their content. A file with a good header may still be damaged.
    """
    data = example.data
    if not isinstance(data, bytes):
        grey = bool((data == data[..., :1]).all())
        return Header("pixels", data.shape[1], data.shape[0], grey, turned=False)
    if data[:4] == b"\0\0\1\0":
        return _icon(data)
    try:
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            orientation = _orientation(image)
    except Exception:  # on damage Pillow raises a dozen classes, SyntaxError and IndexError among them
        return None
    width, height = image.size
    if orientation >= 5 and image.format != "TIFF":  # whose size Pillow has turned already
        width, height = height, width
    name = image.format or ""
    return Header(_NAMES.get(name, name), width, height, image.mode in _GREY, orientation != 1)


def _orientation(image: Image.Image) -> int:
    """Return 1 to 8; 1, upright, where it is not said."""
    content = image.info.get("exif", b"")
    tags = Image.Exif()
    try:
        if image.format == "TIFF":
            tags = image.getexif()
        elif content:
            tags.load(content)
        value = tags.get(_ORIENTATION, 1)
    except Exception:  # a damaged block does not lose the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _icon(data: bytes) -> Header | None:
    """Return the header of the largest picture of an icon, whose sides of 256 are written as 0."""
    try:
        sides = [struct.unpack_from("BB", data, 6 + 16 * entry) for entry in range(data[4])]
        width, height = max(((w or 256, h or 256) for w, h in sides), key=lambda side: side[0] * side[1])
    except (struct.error, IndexError, ValueError):
        return None
    return Header("ICO", width, height, grey=False, turned=False)
