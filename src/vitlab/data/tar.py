"""One packed example as bytes of a tar file: its label, its name and its image, three members that share a number.

`0000000012.cls` holds the label as text (`.json` a list of labels, where an example may have several), `0000000012.name.txt`
what the example was called before it was packed, `0000000012.jpg` the untouched bytes of its file. That is how webdataset groups
a sample, and any tar program unpacks it. An example is one run of bytes, so that one read brings all of it.
"""

import json
import re
import tarfile
from typing import NamedTuple

Label = int | tuple[int, ...]

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends a tar file."""
MEMBERS = 3
MAX_IMAGE = 1 << 30
_MAX_NAME = 1 << 16
MAX_RUN = MAX_IMAGE + 2 * _MAX_NAME + (1 << 20)
"""Bytes of one example, with a label that may be long; larger claims are refused before anything is read."""
_NAME = re.compile(r"(\d{10,20})\.(cls|json|name\.txt|[a-z0-9]{1,4})")
_KINDS = (  # how the bytes of an image file begin; webdataset chooses its decoder by the suffix
    (rb"\xff\xd8\xff", "jpg"),
    (rb"\x89PNG", "png"),
    (rb"RIFF....WEBP", "webp"),
    (rb"GIF8", "gif"),
    (rb"BM", "bmp"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "tif"),
    (rb"....ftypavi", "avif"),
    (rb"\0\0\0\x0cjP|\xff\x4f\xff\x51", "jp2"),
    (rb"P[1-7]\s", "ppm"),
    (rb"\0\0\x01\0", "ico"),
)


class TarError(Exception):
    """A run of bytes is no packed example; the text says why."""


class Packed(NamedTuple):
    """A packed example; `number` is its place in the data set it was packed from."""

    number: int
    label: Label
    name: str
    image: bytes


def pack_example(example: Packed) -> bytes:
    """Return the run of an example: the same bytes whoever packs it, and when."""
    several = isinstance(example.label, tuple)
    label = json.dumps(example.label) if several else str(example.label)
    name = example.name.encode(errors="backslashreplace")[:_MAX_NAME]
    members = (
        ("json" if several else "cls", label.encode()),
        ("name.txt", name),
        (suffix(example.image), example.image),
    )
    return b"".join(_member(f"{example.number:010d}.{kind}", content) for kind, content in members)


def unpack_example(run: bytes) -> Packed:
    """Return the example whose run this is.

    Raises:
        TarError: it is cut short or damaged, or a member is none that `pack_example` writes.
    """
    found: list[tuple[int, str, bytes]] = []
    start = 0
    while start < len(run):
        if len(found) == MEMBERS:
            raise TarError("holds more than one example where the index says one")
        header = _header(run[start : start + BLOCK])
        number, kind = _number_and_kind(header)
        end = start + BLOCK + header.size
        if end > len(run):
            raise TarError(f"member {header.name!r} claims {header.size:,} bytes, more than the index gives it")
        found.append((number, kind, run[start + BLOCK : end]))
        start = _padded(end)
    if start != len(run) or len(found) != MEMBERS or len({number for number, _, _ in found}) != 1:
        raise TarError("does not hold one whole example where the index says so")
    (number, kind, label), (_, second, name), (_, _, image) = found
    if kind not in ("cls", "json") or second != "name.txt" or len(name) > _MAX_NAME:
        raise TarError("does not hold a label, a name and an image where the index says so")
    return Packed(number, _label(kind, label), name.decode(errors="backslashreplace"), image)


def suffix(image: bytes) -> str:
    """Return the usual suffix of an image file, told by its first bytes; "img" for what is not known."""
    return next((kind for start, kind in _KINDS if re.match(start, image[:16], re.DOTALL)), "img")


def leaves(name: str) -> bool:
    """Return whether the path `name` leads out of the folder that it is unpacked in."""
    return name.startswith(("/", "\\")) or ".." in re.split(r"[\\/]", name)


def _member(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)  # of nobody, from 1970: nothing in it depends on who packs
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise TarError(f"has no tar header where the index says so ({error})") from None
    if header.type != tarfile.REGTYPE or header.size < 0:
        raise TarError(f"member {header.name!r} is no regular file")
    return header


def _number_and_kind(header: tarfile.TarInfo) -> tuple[int, str]:
    found = _NAME.fullmatch(header.name)
    if found is None:
        what = "leads out of its folder" if leaves(header.name) else "is no part of a packed example"
        raise TarError(f"member {header.name!r} {what}")
    return int(found[1]), found[2]


def _label(kind: str, content: bytes) -> Label:
    """Return the label that a member holds; `json.loads` is given a few short numbers only."""
    several = re.fullmatch(rb"\[(\d{1,9}(, \d{1,9})*)?\]", content) if kind == "json" else None
    if several is not None:
        return tuple(json.loads(content))
    if kind == "json" or re.fullmatch(rb"\d{1,9}", content) is None:
        raise TarError(f"holds {content[:40]!r} as its label")
    return int(content)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
