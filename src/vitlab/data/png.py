"""PNG: what Pillow lets pass of a damaged file. It skips the checksums of the pixel data and leaves rows that never came black."""

import struct
import zlib
from collections.abc import Iterator

from PIL import ImageFile

from vitlab.data.limits import Limits, check_size, damaged


def check(data: bytes, name: str, limits: Limits) -> None:
    """Refuse a PNG with a wrong checksum, without an end, or too large."""
    kinds: set[bytes] = set()
    for kind, start, end in _chunks(data):
        if end + 4 > len(data):
            raise damaged(name, "PNG file is truncated")
        if zlib.crc32(data[start - 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise damaged(name, f"PNG file has a wrong checksum in its {kind.decode('latin-1')!a} chunk")
        if kind == b"IHDR" and end - start == 13:
            check_size(struct.unpack_from(">II", data, start), name, limits)
        kinds.add(kind)
    for kind in (b"IHDR", b"IDAT", b"IEND"):
        if kind not in kinds:
            raise damaged(name, f"PNG file is truncated: it has no {kind.decode()} chunk")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of the content of every chunk of a PNG up to its end."""
    position, kind = 8, b""
    while position + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, position + 8 + length
        position += 12 + length


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def check_is_whole(image: ImageFile.ImageFile, data: bytes, name: str) -> None:
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
        raise damaged(name, "PNG file ends before its picture does")
