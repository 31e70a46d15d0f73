"""Image: the bytes of an image file, from anywhere, as upright 8-bit sRGB pixels, or an error that says why not."""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pydantic import Field

from vitlab.config import Settings
from vitlab.data.source import Pixels
from vitlab.errors import ImageError, RequestError


class Limits(Settings):
    """What one image may cost. The defaults admit every camera picture and refuse files built to exhaust a machine."""

    max_bytes: Annotated[int, Field(gt=0)] = 256 << 20
    max_pixels: Annotated[int, Field(gt=0)] = 64_000_000  # 192 MB as RGB
    max_side: Annotated[int, Field(gt=0)] = 65_535
    max_scans: Annotated[int, Field(gt=0)] = 64  # of a progressive JPEG; encoders write about 10, and each costs a pass


LIMITS = Limits()


def decode(data: bytes, name: str, limits: Limits = LIMITS) -> Pixels:
    """Return the image in `data` as a viewer shows it: uint8 [h, w, 3], sRGB, upright, its first frame, over white.

    The content decides the format, never the name: JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, JPEG 2000, PPM and ICO; no
    other decoder is ever reached. EXIF orientation is applied, an ICC profile is converted to sRGB (an unreadable
    profile or EXIF block does not lose the image), 16-bit samples are scaled, transparency is blended with white.
    A file whose picture is incomplete is refused, also where Pillow would fill the rest with grey or black: PNG by its
    checksums and size, baseline JPEG by its entropy data. A progressive JPEG damaged inside a scan, or a flipped bit
    after which a whole picture still decodes, cannot be told from the file alone.

    Raises:
        ImageError: `name`, why the image cannot or must not be decoded, and what to do about it.
        RequestError: Pillow is told, for the whole process, to let incomplete pictures pass.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        what = "LOAD_TRUNCATED_IMAGES is set, which fills what is missing of a picture with grey"
        raise RequestError("PIL.ImageFile", what, "set it to False")
    kind = _kind(data, name, limits)
    try:
        if kind is _JPEG:
            data = _jpeg_for_pillow(data, name, limits)
        elif kind is _PNG:
            _check_png(data, name, limits)
        elif kind is _ICO:
            _check_icon(data, name, limits)
        image = kind.opener(io.BytesIO(data))
        _check_size(image.size, name, limits)
        image.load()
        if kind is _PNG:
            _check_png_is_whole(image, data, name)
        pixels = np.array(_upright(_srgb(_eight_bit(image, name)), image.info.get("exif", b"")))
    except ImageError:
        raise
    except Exception as error:  # on damage Pillow raises a dozen classes, SyntaxError and IndexError among them
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason == "unknown pixel mode":
            what = f"{kind.name} file has more channels than colour and transparency, or samples of a rare kind"
            raise ImageError(name, what, "choose three channels and save them as 8-bit RGB") from error
        raise _damaged(name, f"{kind.name} file cannot be decoded ({reason})") from error
    return pixels


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader without its own look into EXIF, which warns about damage that `_orientation` ignores."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


class _Kind(NamedTuple):
    name: str
    signature: re.Pattern[bytes]
    opener: Callable[[io.BytesIO], ImageFile.ImageFile]


_JPEG = _Kind("JPEG", re.compile(rb"\xff\xd8\xff"), _Jpeg)
_PNG = _Kind("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile)
_ICO = _Kind("ICO", re.compile(rb"\0\0\x01\0[^\0]\0"), IcoImagePlugin.IcoImageFile)
_KINDS = (
    _JPEG,
    _PNG,
    _Kind("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    _Kind("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    _Kind("BMP", re.compile(rb"BM.{12}", re.DOTALL), BmpImagePlugin.BmpImageFile),
    _Kind("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    _Kind("AVIF", re.compile(rb"....ftypavi[fs]", re.DOTALL), AvifImagePlugin.AvifImageFile),
    _Kind("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), Jpeg2KImagePlugin.Jpeg2KImageFile),
    _Kind("PPM", re.compile(rb"P[1-6]\s"), PpmImagePlugin.PpmImageFile),
    _ICO,
)

_CONVERT = "convert it to JPEG or PNG"
_REPLACE = "fetch it again, or remove it"
_FOREIGN = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what, remedy)
    for pattern, what, remedy in (
        (rb"\0+\Z", "is not an image: it begins with zeros only, as after a crash", _REPLACE),
        (rb"version https://git-lfs", "is not an image but a Git LFS pointer", "run `git lfs pull` in its repository"),
        (rb"\0\x05\x16[\0\x07]", "is not an image but a macOS resource fork", "remove it"),
        (rb"....ftyp(hei|hev|mif1|msf1)", "is a HEIC image, which is not supported", _CONVERT),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "is a JPEG XL image, which is not supported", _CONVERT),
        (rb"\s*(<\?xml.*)?<svg", "is an SVG drawing, which is not supported", "render it to PNG"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "is a PostScript file, a format that is not allowed", _CONVERT),
        (rb"SIMPLE  =", "is a FITS file, a format that is not allowed", _CONVERT),
        (rb"8BPS", "is a Photoshop file, a format that is not allowed", _CONVERT),
        (rb"%PDF", "is not an image but a PDF document", "extract its pages as PNG"),
        (rb"\s*<(!doctype|html)", "is not an image but an HTML page, probably a failed download", _REPLACE),
        (rb"\x1f\x8b|PK\x03\x04|7z\xbc\xaf|BZh|\xfd7zXZ", "is not an image but a compressed archive", "unpack it"),
    )
)


def _kind(data: bytes, name: str, limits: Limits) -> _Kind:
    if not data:
        raise ImageError(name, "is empty (0 bytes)", _REPLACE)
    if len(data) > limits.max_bytes:
        raise ImageError(
            name, f"has {len(data):,} bytes, more than {limits.max_bytes:,}", "shrink it, or raise limits.max_bytes"
        )
    for kind in _KINDS:
        if kind.signature.match(data):
            return kind
    for pattern, what, remedy in _FOREIGN:
        if pattern.match(data[:4096]):
            raise ImageError(name, what, remedy)
    names = ", ".join(kind.name for kind in _KINDS)
    raise ImageError(name, f"is not an image in a known format ({names})", _CONVERT)


def _damaged(name: str, what: str) -> ImageError:
    return ImageError(name, what, _REPLACE)


def _check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    """Refuse a size that is zero or too large; called before anything of that size is allocated."""
    width, height = size
    if not (width and height):
        raise _damaged(name, f"claims a size of {width} × {height} pixels")
    if width * height > limits.max_pixels:
        what = f"has {width} × {height} pixels, more than {limits.max_pixels:,}"
        raise ImageError(name, what, "shrink it, or raise limits.max_pixels")
    if max(width, height) > limits.max_side:
        what = f"has {width} × {height} pixels, a side of more than {limits.max_side:,}"
        raise ImageError(name, what, "shrink it, or raise limits.max_side")


# JPEG. Where the entropy data ends before the picture does, libjpeg counts a warning and fills the rest with grey: it
# never reads past a marker. So the marker after a baseline scan is replaced by a few bytes of padding: a whole picture
# needs no more than that, an incomplete one runs out of data, which Pillow reports.

_MARKER = re.compile(rb"\xff+([^\0\xff])", re.DOTALL)
_SCAN_END = re.compile(rb"\xff[^\0\xff\xd0-\xd7]", re.DOTALL)
_PADDING = bytes(16)  # libjpeg prefetches at most 8 bytes beyond the last code
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF markers
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}


def _jpeg_for_pillow(data: bytes, name: str, limits: Limits) -> bytes:
    """Return `data` so that Pillow cannot complete an incomplete picture, after checks of size, kind and cost."""
    frame, components = 0, 0
    for marker, start in _segments(data):
        if marker in _FRAMES:
            frame = marker
            precision, height, width, components = struct.unpack_from(">BHHB", data, start)
            _check_size((width, height), name, limits)
            if precision != 8 or marker in _LOSSLESS:
                what = "lossless" if marker in _LOSSLESS else f"{precision}-bit"
                raise ImageError(name, f"is a {what} JPEG, which is not supported", "convert it to PNG or 8-bit JPEG")
        elif marker == 0xDA:
            if frame in (0xC0, 0xC1) and data[start] == components:  # Huffman-coded, all in one scan
                end = _SCAN_END.search(data, start)
                if end is None:
                    raise _damaged(name, "JPEG file is truncated: it ends inside its picture")
                return data[: end.start()] + _PADDING
            scans = data.count(b"\xff\xda", start - 4)
            if scans > limits.max_scans:
                what = f"is a JPEG of {scans} scans, more than {limits.max_scans}"
                raise ImageError(name, what, "save it anew, or raise limits.max_scans")
            return data
    raise _damaged(name, "JPEG file is truncated: it ends before its picture")


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


# PNG. Pillow skips the checksums of the pixel data and leaves rows that never came black.


def _check_png(data: bytes, name: str, limits: Limits) -> None:
    """Refuse a PNG with a wrong checksum, without an end, or too large."""
    kinds: set[bytes] = set()
    for kind, start, end in _chunks(data):
        if end + 4 > len(data):
            raise _damaged(name, "PNG file is truncated")
        if zlib.crc32(data[start - 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise _damaged(name, f"PNG file has a wrong checksum in its {kind.decode('latin-1')!a} chunk")
        if kind == b"IHDR" and end - start == 13:
            _check_size(struct.unpack_from(">II", data, start), name, limits)
        kinds.add(kind)
    for kind in (b"IHDR", b"IDAT", b"IEND"):
        if kind not in kinds:
            raise _damaged(name, f"PNG file is truncated: it has no {kind.decode()} chunk")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of the content of every chunk of a PNG up to its end."""
    position, kind = 8, b""
    while position + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, position + 8 + length
        position += 12 + length


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _check_png_is_whole(image: ImageFile.ImageFile, data: bytes, name: str) -> None:
    """Refuse a PNG whose pixel data ends early; only where its last row is blank is it inflated again to tell."""
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if not interlaced and image.crop((0, height - 1, width, height)).getbbox(alpha_only=False):
        return
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    missing = sum(h * (1 + (w * bits + 7) // 8) for w, h in sizes if w > 0 and h > 0)
    inflate = zlib.decompressobj()
    for kind, start, end in _chunks(data):
        rest = data[start:end] if kind == b"IDAT" else b""
        while rest and missing > 0:
            missing -= len(inflate.decompress(rest, 1 << 20))
            rest = inflate.unconsumed_tail
    if missing > 0:
        raise _damaged(name, "PNG file ends before its picture does")


def _check_icon(data: bytes, name: str, limits: Limits) -> None:
    """Refuse an icon that holds a picture too large, which the 8-bit sizes in its directory cannot tell."""
    for entry in range(6, 6 + 16 * data[4], 16):
        (start,) = struct.unpack_from("<I", data, entry + 12)
        if _PNG.signature.match(data, start):
            _check_size(struct.unpack_from(">II", data, start + 16), name, limits)
        else:
            width, height = struct.unpack_from("<ii", data, start + 4)  # of a BMP whose mask doubles its height
            _check_size((abs(width), abs(height) // 2), name, limits)


# Pixels.

_WHITE = 255


def _eight_bit(image: ImageFile.ImageFile, name: str) -> Image.Image:
    """Return an image of 8-bit samples; Pillow alone would clip 16-bit grey at 255."""
    if image.mode in ("I", "F") and image.format != "PPM":
        what = "has 32-bit or signed samples, and the file does not say which values are black and white"
        raise ImageError(name, what, "scale them to the range you want and save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values: NDArray[np.integer] = np.asarray(image)
    tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = int(tags.get(258, (16,))[0])
    grey = (values >> (bits - 8)).astype(np.uint8)
    scaled = Image.fromarray(_WHITE - grey if tags.get(262) == 0 else grey)  # 0: white is zero
    scaled.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    key = image.info.get("transparency")
    if key is not None:
        scaled.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return scaled


def _srgb(image: Image.Image) -> Image.Image:
    """Return `image` as RGB: its profile converted to sRGB, what is transparent over white."""
    alpha = None
    color = image
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        color = image.getchannel("L") if image.mode == "LA" else whole.convert("RGB")
    elif image.mode not in ("RGB", "L", "CMYK"):
        color = image.convert("RGB")
    profile = image.info.get("icc_profile")
    transform = _to_srgb(profile, color.mode) if profile else None
    if transform:
        color = cast(Image.Image, ImageCms.applyTransform(color, transform))
    elif color.mode != "RGB":
        color = color.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", color.size, (_WHITE, _WHITE, _WHITE))
        white.paste(color, mask=alpha)
        return white
    return color


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of pixels of `mode` to sRGB; None where it is not needed, or the profile cannot be used."""
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None
        srgb: Any = cast(Any, ImageCms).createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
        if mode == "CMYK":
            return transform
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        colors = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 3) if mode == "RGB" else steps[:, None]
        before = Image.fromarray(colors)
        after = ImageCms.applyTransform(before, transform)
        moved = np.abs(np.asarray(before.convert("RGB"), np.int16) - np.asarray(after, np.int16)).max()
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    return transform if moved > 2 else None  # nearly every profile found in photos is sRGB itself


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, exif: bytes) -> Image.Image:
    turn = _TURNS.get(_orientation(exif)) if exif else None
    return image if turn is None else image.transpose(turn)


def _orientation(exif: bytes) -> int:
    """Return the orientation in the first directory of `exif`, 1 where there is none or it cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return 1
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:
                return struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)[0]
    except struct.error:
        pass
    return 1
