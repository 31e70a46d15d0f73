"""Tar files as bytes: the run of members that is one packed example, and the members of a tar file that somebody else wrote.

A packed example is its label, its name and its image, three members that share a number.
`0000000012.cls` holds the label as text (`.json` a list of labels, where an example may have several), `0000000012.name.txt`
what the example was called before it was packed, `0000000012.jpg` the untouched bytes of its file. That is how webdataset groups
a sample, and any tar program unpacks it. An example is one run of bytes, so that one read brings all of it.
"""

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from vitlab.data.labels import Label

BLOCK = 512
END = bytes(2 * BLOCK)
"""What ends a tar file."""
MEMBERS = 3
MAX_IMAGE = 1 << 30
MAX_MEMBERS = 1_000_000
"""Of one tar file: more are a mistake or an attack, and a list of them would have no bound."""
_MAX_NAME = 1 << 16  # bytes, of this and of other things in extra headers
_MAX_FIELDS = 100  # in an extra header, which has a few: the times of a file, perhaps its attributes
MAX_RUN = MAX_IMAGE + 2 * _MAX_NAME + (1 << 20)
"""Bytes of one example, with a label that may be long; larger claims are refused before anything is read."""
_NAME = re.compile(r"(\d{10,20})\.(cls|json|name\.txt|[a-z0-9]{1,4})")
_FIELD = re.compile(rb"(\d{1,5}) ([^=]+)=")
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
_EXTRA = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME}
_FORBIDDEN = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}

Read = Callable[[int, int], bytes]
"""Returns bytes of a tar file, given the first and how many; fewer where it ends."""


class TarError(Exception):
    """Bytes are no tar file, or none that is accepted; the text says why."""


class Member(NamedTuple):
    """A file in a tar file: its headers begin at `start`, its `size` bytes at `offset`."""

    name: str
    start: int
    offset: int
    size: int


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
    parts = (
        ("json" if several else "cls", label.encode()),
        ("name.txt", name),
        (suffix(example.image), example.image),
    )
    return b"".join(_member(f"{example.number:010d}.{kind}", content) for kind, content in parts)


def unpack_example(run: bytes) -> Packed:
    """Return the example whose run this is.

    Raises:
        TarError: it is cut short or damaged, or a member is none that `pack_example` writes.
    """
    found = list(islice(members(lambda start, size: run[start : start + size], len(run)), MEMBERS + 1))
    starts, ends = [each.start for each in found], [padded(each.offset + each.size) for each in found]
    if (
        len(found) != MEMBERS
        or [*starts, len(run)] != [0, *ends]
        or any(each.offset - each.start > BLOCK for each in found)
    ):
        raise TarError("does not hold one whole example where the index says so")
    named = [_number_and_kind(each.name) for each in found]
    label, name, image = (run[each.offset : each.offset + each.size] for each in found)
    (number, kind), (_, second), _ = named
    if kind not in ("cls", "json") or second != "name.txt" or {each for each, _ in named} != {number}:
        raise TarError("does not hold a label, a name and an image of one number where the index says so")
    return Packed(number, _label(kind, label), name[:_MAX_NAME].decode(errors="backslashreplace"), image)


def members(read: Read, size: int) -> Iterator[Member]:
    """Yield the files in a tar file of `size` bytes, in order.

    Raises:
        TarError: it is cut short or damaged, or has something else than files and folders in it, names that lead out of it, sizes
            that it cannot hold, or more than a million members.
    """
    position = start = 0
    name: str | None = None
    for _ in range(MAX_MEMBERS):
        block = read(position, BLOCK)
        if len(block) < BLOCK and (block or position < size or name is not None):
            raise TarError(f"is cut short at byte {position:,}")
        if not block.strip(b"\0"):
            return
        header = _header(block)
        end = position + BLOCK + header.size
        if not 0 <= header.size <= size - position - BLOCK:
            raise TarError(f"member {header.name!r} claims {header.size:,} bytes, more than there are")
        if header.type in _EXTRA:
            if header.size > _MAX_NAME:
                raise TarError(f"has an extra header of {header.size:,} bytes")
            name = _long_name(header.type, read(position + BLOCK, header.size)) or name
        else:
            header.name = name or header.name
            _check(header)
            if header.type != tarfile.DIRTYPE:
                yield Member(header.name, start, position + BLOCK, header.size)
            name, start = None, padded(end)
        position = padded(end)
    raise TarError(f"has more than {MAX_MEMBERS:,} members")


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
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise TarError(f"has no tar header where one should be ({error})") from None


def _number_and_kind(name: str) -> tuple[int, str]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise TarError(f"member {name!r} is no part of a packed example")
    return int(found[1]), found[2]


def _label(kind: str, content: bytes) -> Label:
    """Return the label that a member holds; `json.loads` is given a few short numbers only."""
    several = re.fullmatch(rb"\[(\d{1,9}(, \d{1,9})*)?\]", content) if kind == "json" else None
    if several is not None:
        return tuple(json.loads(content))
    if kind == "json" or re.fullmatch(rb"\d{1,9}", content) is None:
        raise TarError(f"holds {content[:40]!r} as its label")
    return int(content)


def padded(size: int) -> int:
    """Return the bytes that a member takes in a tar file, whose blocks are all of one size."""
    return -(-size // BLOCK) * BLOCK


def _check(header: tarfile.TarInfo) -> None:
    if leaves(header.name) or "\0" in header.name:
        raise TarError(f"member {header.name!r} leads out of its folder")
    if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise TarError(f"member {header.name!r} is {_FORBIDDEN.get(header.type, 'of an unusual kind')}, not a file")


def _long_name(kind: bytes, content: bytes) -> str | None:
    """Return the name in an extra header, None if it holds other things. A size there is refused: it contradicts the header."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode(errors="surrogateescape")
    fields: dict[bytes, bytes] = {}
    start, end, count = 0, len(content.rstrip(b"\0")), 0
    while start < end:
        found = _FIELD.match(content, start)
        stop = start + int(found[1]) if found else 0
        if found is None or content[stop - 1 : stop] != b"\n" or stop <= found.end():
            raise TarError("has an extra header that is damaged")
        fields[found[2]] = content[found.end() : stop - 1]
        start, count = stop, count + 1
        if count > _MAX_FIELDS:
            raise TarError(f"has an extra header of more than {_MAX_FIELDS} fields")
    if b"size" in fields or any(key.startswith(b"GNU.sparse") for key in fields):
        raise TarError("has a size in an extra header")
    return fields[b"path"].decode(errors="surrogateescape") if b"path" in fields and kind != tarfile.XGLTYPE else None
