"""Native: the two inner loops in C, used where a compiler was there when vitlab was installed; never other pixels, only sooner."""

import ctypes
import glob
import io
import os
from ctypes.util import find_library
from functools import cache
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from vitlab.data.source import Pixels

_LIBRARY = Path(__file__).parent / "libvitlab.so"
_MESSAGE_BYTES = 200


def region(data: bytes, box: tuple[int, int, int, int], reduce: int = 1) -> Pixels:
    """Return the part `box` (left, top, right, bottom, in pixels at 1 / `reduce` scale) of a JPEG: uint8 [h, w, 3].

    `reduce` is 1, 2, 4 or 8. The rows above the part are skipped, those below it are not looked at.

    Raises:
        ValueError: the file is damaged as far as it was read; what libjpeg says of it.
        RuntimeError: the library is not there (see `available`).
    """
    left, top, right, bottom = box
    pixels = np.empty((bottom - top, right - left, 3), np.uint8)
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    place = (reduce, left, top, right - left, bottom - top)
    if _loaded().vitlab_region(data, len(data), *place, pixels.ctypes.data, message):
        raise ValueError(message.value.decode("ascii", "replace"))
    return pixels


def resize(
    pixels: Pixels,
    height: int,
    width: int,
    box: tuple[float, float, float, float],
    bicubic: bool,
    mirrored: bool = False,
) -> Pixels:
    """Return `box` (left, top, right, bottom) of `pixels` (uint8 [h, w, 3]) resized with antialiasing, as Pillow does it.

    The result is laid out channel by channel, as a model takes it; `mirrored` exchanges left and right.

    Raises:
        MemoryError: there is too little.
        RuntimeError: the library is not there (see `available`).
    """
    pixels = np.ascontiguousarray(pixels)
    planes = np.empty((3, height, width), np.uint8)
    corners, size = (ctypes.c_float * 4)(*box), (pixels.shape[0], pixels.shape[1])
    how = (height, width, int(bicubic), int(mirrored))
    if _loaded().vitlab_resize(pixels.ctypes.data, *size, corners, planes.ctypes.data, *how):
        raise MemoryError
    return planes.transpose(1, 2, 0)


def available() -> bool:
    """Whether the library is there, has found Pillow's libjpeg-turbo, and decodes as Pillow does."""
    return _library() is not None


def decoder() -> str:
    """Return what decodes JPEG files, in words."""
    pillow = f"the libjpeg-turbo of Pillow {PIL.__version__}"
    if available():
        return f"{pillow}, only the parts that are needed (compiled)"
    return f"{pillow}, whole pictures (no C compiler was there when vitlab was installed: about half as fast)"


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("vitlab was installed without a C compiler")
    return library


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(_LIBRARY))
    except OSError:
        return None
    number, pointer = ctypes.c_uint, ctypes.c_void_p
    library.vitlab_open.argtypes = [ctypes.c_char_p]
    library.vitlab_region.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *[number] * 5, pointer, ctypes.c_char_p]
    library.vitlab_resize.argtypes = [pointer, ctypes.c_int, ctypes.c_int, pointer, pointer, *[ctypes.c_int] * 4]
    return library if any(_decodes_as_pillow(library, path) for path in _libjpegs()) else None


def _libjpegs() -> list[str]:
    """Return where Pillow's libjpeg may be: beside it in a wheel, or in the system where Pillow comes from there."""
    packages = Path(PIL.__file__).parent
    beside = (packages.parent / "pillow.libs" / "libjpeg*.so*", packages / ".dylibs" / "libjpeg*.dylib")
    found = [path for pattern in beside for path in sorted(glob.glob(os.fspath(pattern)))]
    system = find_library("jpeg") if not found else None
    return [*found, *([system] if system else [])]


def _decodes_as_pillow(library: ctypes.CDLL, path: str) -> bool:
    """Try the libjpeg at `path`: another version of its interface refuses before it touches anything."""
    if library.vitlab_open(os.fsencode(path)):
        return False
    file = io.BytesIO()
    ramp = np.arange(48 * 48 * 3, dtype=np.uint32).reshape(48, 48, 3) * 37 >> 6
    Image.fromarray(ramp.astype(np.uint8)).save(file, "JPEG")
    expected = np.asarray(Image.open(file).convert("RGB"))[5:40, 3:47]
    pixels, message = np.empty((35, 44, 3), np.uint8), ctypes.create_string_buffer(_MESSAGE_BYTES)
    data = file.getvalue()
    failed = library.vitlab_region(data, len(data), 1, 3, 5, 44, 35, pixels.ctypes.data, message)
    return not failed and bool((pixels == expected).all())
