"""Archives: unpacked so that nothing in them can reach outside their folder or fill the disk."""

import errno
import gzip
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BufferedIOBase
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, cast

from vitlab.download import progress
from vitlab.errors import DataError

Kind = Literal["tar", "zip", "gz"]
MAX_MEMBERS = 1_000_000
LEAST_LIMIT, RATIO = 256 << 20, 30
"""What an archive may unpack to, unless it is known: so many times its own size, but no less than this."""
MAX_HEADER = 1 << 16
"""Of a member's long name and other details, which are read into memory, by tarfile in time that grows with their square."""
_PIECE = 1 << 20

H = TypeVar("H", bound="_Header")


class _Header(tarfile.TarInfo):
    """A tar's header that cannot ask for gigabytes of memory."""

    @classmethod
    def frombuf(cls: type[H], buf: bytes | bytearray, encoding: str, errors: str) -> H:
        header = super().frombuf(buf, encoding, errors)
        if not (header.isreg() or header.isdir()) and header.size > MAX_HEADER:
            raise MemoryError(f"a header of {header.size:,} bytes")
        return header


class _Member(NamedTuple):
    name: str
    is_folder: bool
    open: Callable[[], BufferedIOBase]


def unpack(archive: Path, folder: Path, kind: Kind, most_bytes: int | None = None) -> None:
    """Unpack the files of `archive` into `folder`: a tar of any compression, a zip, or one file compressed by gzip.

    Links, devices, and names that are absolute or climb are refused, as are more than a million members and more than
    `most_bytes` (by default 30 times the archive). A file that is there already is an error: names may differ by case alone.

    Raises:
        DataError: the archive is damaged, or holds what it must not; what was unpacked before is left.
    """
    limit = most_bytes or max(LEAST_LIMIT, RATIO * archive.stat().st_size)
    try:
        _write_members(archive, folder, kind, limit)
    except DataError:
        raise
    except Exception as error:  # on damage these libraries raise a dozen classes, TypeError among them
        if isinstance(error, FileExistsError):
            raise _unsafe(archive, f"holds {Path(str(error.filename)).name!r} twice") from None
        if isinstance(error, OSError) and error.errno not in (
            None,
            errno.EINVAL,
        ):  # the disk's fault, not the archive's
            raise  # EINVAL: a place before the file's beginning, which a damaged zip names
        raise DataError(archive, f"is damaged ({' '.join(str(error).split())})", "fetch it again") from error


def _write_members(archive: Path, folder: Path, kind: Kind, limit: int) -> None:
    written = 0
    with progress("unpacking", archive.name, None) as advance:
        for count, member in enumerate(_members(archive, kind)):
            if count >= MAX_MEMBERS:
                raise _unsafe(archive, f"has more than {MAX_MEMBERS:,} members")
            target = folder / _safe(member.name, archive)
            if member.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with closing(member.open()) as source, target.open("xb") as file:
                while piece := source.read(_PIECE):
                    written += len(piece)
                    if written > limit:
                        raise _unsafe(archive, f"unpacks to more than {limit:,} bytes")
                    file.write(piece)
                    advance(written)


def _members(archive: Path, kind: Kind) -> Iterator[_Member]:
    if kind == "gz":
        yield _Member(archive.name.removesuffix(".gz"), False, lambda: _gzip(archive))
    elif kind == "zip":
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                mode = info.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _unsafe(archive, f"holds {info.filename!r}, which is neither a file nor a folder")
                yield _Member(info.filename, info.is_dir(), lambda info=info: _of_zip(zipped, info))
    else:
        with tarfile.open(archive, "r|*", tarinfo=_Header) as tar:
            for member in tar:
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise _unsafe(archive, f"holds {member.name!r}, which is neither a file nor a folder")
                yield _Member(member.name, member.isdir(), lambda member=member: _of_tar(tar, member))


def _gzip(path: Path) -> BufferedIOBase:
    return gzip.GzipFile(path, "rb")


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> BufferedIOBase:
    return cast(BufferedIOBase, zipped.open(info))


def _of_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BufferedIOBase:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.TarError(f"{member.name} has no content")
    return cast(BufferedIOBase, file)


def _safe(name: str, archive: Path) -> Path:
    """Return the path of a member if it stays where it is unpacked to."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or "\\" in name or "\0" in name or re.match("[A-Za-z]:", name) or ".." in parts:
        raise _unsafe(archive, f"holds {name!r}, which leads out of its folder")
    return Path(*parts)


def _unsafe(archive: Path, what: str) -> DataError:
    return DataError(archive, what, "this is not the archive that was published: fetch it again, or from elsewhere")


def free_bytes(folder: Path) -> int:
    """Return how much the disk that holds `folder`, or will, has left."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
