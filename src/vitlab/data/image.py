"""Image: the bytes of an image file, from anywhere, as upright 8-bit sRGB pixels, or an error that says why not."""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from vitlab.data import png
from vitlab.data.color import eight_bit, srgb
from vitlab.data.jpeg import Jpeg, read_header
from vitlab.data.limits import LIMITS, REPLACE, Limits, check_size, damaged, no_memory
from vitlab.data.orientation import UPRIGHT, turn_of
from vitlab.data.source import Pixels
from vitlab.errors import ImageError, RequestError

Decoding = Literal["standard", "pil-compat"]
"""What a file's pixels are. "standard" is what a viewer shows: upright, in sRGB, over white, 16-bit samples scaled.

"pil-compat" is what `Image.open(file).convert("RGB")` of Pillow gives, which is how most published accuracies were measured:
as stored, no profile, transparency dropped, 16-bit grey clipped at 255. What is refused is the same.
"""


Picture = Pixels | Jpeg
"""Pixels (uint8 [h, w, 3]), or a JPEG of which only the part that is needed will be decoded; both have that `shape`."""


def decode(data: bytes, name: str, limits: Limits = LIMITS, decoding: Decoding = "standard") -> Pixels:
    """Return the image in `data` as a viewer shows it: uint8 [h, w, 3], sRGB, upright, its first frame, over white.

    The content decides the format, never the name: JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, JPEG 2000, PPM and ICO; no
    other decoder is ever reached. EXIF orientation is applied, an ICC profile is converted to sRGB (an unreadable
    profile or EXIF block does not lose the image), 16-bit samples are scaled, transparency is blended with white.
    A file whose picture is incomplete is refused, also where Pillow would fill the rest with grey or black: PNG by its
    checksums and size, JPEG by its entropy data. A flipped bit after which a whole picture still decodes cannot be told
    from the file alone. Without the compiled part (see `native`) less is seen: a JPEG is then refused only where a
    baseline picture runs out of data, or the file ends.

    Raises:
        ImageError: `name`, why the image cannot or must not be decoded, and what to do about it.
        RequestError: Pillow is told, for the whole process, to let incomplete pictures pass.
    """
    picture = open_image(data, name, limits, decoding)
    return picture.part() if isinstance(picture, Jpeg) else picture


def open_image(data: bytes, name: str, limits: Limits = LIMITS, decoding: Decoding = "standard") -> Picture:
    """Return the image in `data`: a JPEG with its header checked and nothing decoded yet, anything else as its pixels.

    Raises:
        ImageError: as `decode`, which see; what is damaged inside a JPEG is found when that part is decoded.
        RequestError: as `decode`.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        what = "LOAD_TRUNCATED_IMAGES is set, which fills what is missing of a picture with grey"
        raise RequestError("PIL.ImageFile", what, "set it to False")
    kind = _kind(data, name, limits)
    try:
        if kind is _JPEG:
            jpeg = read_header(data, name, limits)
            return jpeg if decoding == "standard" else replace(jpeg, turn=UPRIGHT, profile=b"")
        return _by_pillow(kind, data, name, limits, decoding)
    except ImageError:
        raise
    except MemoryError:
        raise no_memory(name) from None
    except Exception as error:  # on damage Pillow raises a dozen classes, SyntaxError and IndexError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason == "unknown pixel mode":
            what = f"{kind.name} file has more channels than colour and transparency, or samples of a rare kind"
            raise ImageError(name, what, "choose three channels and save them as 8-bit RGB") from error
        raise damaged(name, f"{kind.name} file cannot be decoded ({reason})") from error


def _by_pillow(kind: "_Kind", data: bytes, name: str, limits: Limits, decoding: Decoding) -> Pixels:
    if kind is _PNG:
        png.check(data, name, limits)
    elif kind is _ICO:
        _check_icon(data, name, limits)
    image = kind.opener(io.BytesIO(data))
    check_size(image.size, name, limits)
    image.load()
    if kind is _PNG:
        png.check_is_whole(image, data, name)
    shown = eight_bit(image, name)  # refuses what has no black and white
    if decoding == "pil-compat":
        return np.array(image.convert("RGB"))
    return turn_of(image.info.get("exif", b"")).apply(np.array(srgb(shown)))


class _Kind(NamedTuple):
    name: str
    signature: re.Pattern[bytes]
    opener: Callable[[io.BytesIO], ImageFile.ImageFile]


_JPEG = _Kind("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile)
_PNG = _Kind("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile)
_ICO = _Kind("ICO", re.compile(rb"\0\0\x01\0[^\0]\0"), IcoImagePlugin.IcoImageFile)
_KINDS = (
    _JPEG,
    _PNG,
    _Kind("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    _Kind("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    _Kind("BMP", re.compile(rb"BM.{12}", re.DOTALL), BmpImagePlugin.BmpImageFile),
    _Kind("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    _Kind(
        "AVIF", re.compile(rb"....ftyp(avi[fs]|.{4}.{4}(.{4}){0,8}?avi[fs])", re.DOTALL), AvifImagePlugin.AvifImageFile
    ),
    _Kind("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), Jpeg2KImagePlugin.Jpeg2KImageFile),
    _Kind("PPM", re.compile(rb"P[1-6]\s"), PpmImagePlugin.PpmImageFile),
    _ICO,
)

_CONVERT = "convert it to JPEG or PNG"
_FOREIGN = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what, remedy)
    for pattern, what, remedy in (
        (rb"\0+\Z", "is not an image: it begins with zeros only, as after a crash", REPLACE),
        (rb"version https://git-lfs", "is not an image but a Git LFS pointer", "run `git lfs pull` in its repository"),
        (rb"\0\x05\x16[\0\x07]", "is not an image but a macOS resource fork", "remove it"),
        (rb"....ftyp(hei|hev|mif1|msf1)", "is a HEIC image, which is not supported", _CONVERT),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "is a JPEG XL image, which is not supported", _CONVERT),
        (rb"\s*(<\?xml.*)?<svg", "is an SVG drawing, which is not supported", "render it to PNG"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "is a PostScript file, a format that is not allowed", _CONVERT),
        (rb"SIMPLE  =", "is a FITS file, a format that is not allowed", _CONVERT),
        (rb"8BPS", "is a Photoshop file, a format that is not allowed", _CONVERT),
        (rb"%PDF", "is not an image but a PDF document", "extract its pages as PNG"),
        (rb"\s*<(!doctype|html)", "is not an image but an HTML page, probably a failed download", REPLACE),
        (rb"\x1f\x8b|PK\x03\x04|7z\xbc\xaf|BZh|\xfd7zXZ", "is not an image but a compressed archive", "unpack it"),
    )
)


def _kind(data: bytes, name: str, limits: Limits) -> _Kind:
    if not data:
        raise ImageError(name, "is empty (0 bytes)", REPLACE)
    if len(data) > limits.max_bytes:
        raise ImageError(
            name,
            f"has {len(data):,} bytes, more than {limits.max_bytes:,}",
            "shrink it, or raise image_spec.limits.max_bytes",
        )
    for kind in _KINDS:
        if kind.signature.match(data):
            return kind
    for pattern, what, remedy in _FOREIGN:
        if pattern.match(data[:4096]):
            raise ImageError(name, what, remedy)
    names = ", ".join(kind.name for kind in _KINDS)
    raise ImageError(name, f"is not an image in a known format ({names})", _CONVERT)


def _check_icon(data: bytes, name: str, limits: Limits) -> None:
    """Refuse an icon that holds a picture too large, which the 8-bit sizes in its directory cannot tell."""
    for entry in range(6, 6 + 16 * data[4], 16):
        (start,) = struct.unpack_from("<I", data, entry + 12)
        if _PNG.signature.match(data, start):
            check_size(struct.unpack_from(">II", data, start + 16), name, limits)
        else:
            width, height = struct.unpack_from("<ii", data, start + 4)  # of a BMP whose mask doubles its height
            check_size((abs(width), abs(height) // 2), name, limits)
