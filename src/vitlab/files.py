"""Every byte that must survive a crash: written beside its final name, flushed, then renamed into place.

The five operations at the top are the only ones that change a disk; fault tests replace them.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a new file at `path` and flush it to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Flush the names in the folder `path` to the disk, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Give `old` the name `new`, replacing a file of that name."""
    os.replace(old, new)


def make_folder(path: Path) -> None:
    """Make the folder `path`; it must not exist."""
    path.mkdir()


def remove(path: Path) -> None:
    """Remove the file or folder `path`, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that the name holds either all of the new bytes or what it held before."""
    draft = path.with_name(f".{path.name}.part")
    write_bytes(draft, data)
    rename(draft, path)
    flush_folder(path.parent)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file `path`, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        read: Callable[[], bytes] = lambda: file.read(1 << 20)  # noqa: E731
        for piece in iter(read, b""):
            digest.update(piece)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder for downloads: $VITLAB_CACHE, or vitlab in $XDG_CACHE_HOME, which is ~/.cache unless it is set."""
    ours, common = os.environ.get("VITLAB_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(ours) if ours else (Path(common) if common else Path.home() / ".cache") / "vitlab"
