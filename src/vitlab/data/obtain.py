"""Obtain: a data set of the catalog downloaded, verified and unpacked; it is there whole or not at all."""

from pathlib import Path

from vitlab import files
from vitlab.cache import bring, locked, refuse_offline
from vitlab.data.archive import free_bytes, unpack
from vitlab.data.catalog import Entry, File, entry
from vitlab.download import Known
from vitlab.errors import DataError, VitlabError

MOST_BYTES = 64 << 30
"""Of a file whose size was not published: the largest that is known has 39 GB."""


def obtain(name: str, root: Path) -> Path:
    """Return the folder in `root` that holds the data set `name`, after downloading it if it is not there.

    Downloads are continued where they were cut, and checked against the sizes and checksums that were published; the folder
    appears when everything is unpacked. Several processes wait for one another.

    Raises:
        DataError: the data set cannot be downloaded but must be taken by hand, or an archive is damaged or unsafe.
        DownloadError: a file cannot be downloaded, or is not what was published.
    """
    found = entry(name)
    target = root / found.folder
    if target.is_dir():
        return target
    if not found.files:
        raise DataError(name, "is not for download", f"{found.take}; put or link it at {target}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not target.is_dir():  # another process may have brought it meanwhile
                _check_room(name, found, root)
                _fetch(found, target)
    except OSError as error:
        remedy = "make room, or set VITLAB_DATA to another folder; what has come is kept"
        raise VitlabError(root, f"cannot be written ({error.strerror or error})", remedy) from None
    return target


def _check_room(name: str, found: Entry, root: Path) -> None:
    """Refuse what would fill the disk: the archives and at least as much unpacked."""
    needed, free = 2 * found.known_bytes, free_bytes(root)
    if needed > free:
        what = f"needs {needed / 2**30:,.1f} GiB, and {root} has {free / 2**30:,.1f} GiB left"
        raise DataError(name, what, "make room, or set VITLAB_DATA to another folder")


def _fetch(found: Entry, target: Path) -> None:
    draft = target.with_name(f".{target.name}.part")
    archives, tree = draft / "files", draft / "tree"
    archives.mkdir(parents=True, exist_ok=True)
    for file in found.files:
        path = archives / file.name
        if path.is_file():  # of an attempt that was cut, or fetched elsewhere and put here
            _check(path, file)
        else:
            refuse_offline(file.url, path)
            bring(file.url, path, known=Known(file.bytes, file.sha256, MOST_BYTES))
    files.remove(tree)  # of an attempt that was cut
    tree.mkdir()
    for file in found.files:
        if file.unpack is not None:
            _unpack(archives / file.name, tree, file)
    for file in found.files:  # last, because an attempt that is cut keeps what has come
        if file.unpack is None:
            files.rename(archives / file.name, tree / file.name)
    files.rename(tree, target)
    files.flush_folder(target.parent)
    files.remove(draft)


def _check(path: Path, file: File) -> None:
    """Refuse a file that is not the one that was published."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        raise DataError(path, f"has {size:,} bytes, not {file.bytes:,} as published", "remove it, or replace it")
    if file.sha256 is not None and files.sha256(path) != file.sha256:
        raise DataError(path, "has another sha256 than was published", "remove it, or replace it")


def _unpack(archive: Path, tree: Path, file: File) -> None:
    """Unpack an archive and those in it; one that is damaged or unsafe is removed, so that it is fetched anew."""
    try:
        unpack(archive, tree, file.unpack or "tar", file.most_bytes)
        for inner in file.inner:
            unpack(tree / inner, tree, "tar", file.most_bytes)
            files.remove(tree / inner)
    except DataError:
        files.remove(archive)
        raise
