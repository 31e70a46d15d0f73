"""Leaks: images to evaluate on that are training images too, found without reading much."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path

from vitlab.data.path import DataPath, read_file
from vitlab.data.source import Filed, Source, name_of
from vitlab.errors import ImageError

SMALL = 10_000
"""So many images in both together are compared by content too, where their files are of one size."""
_SHOWN = 3


def leak_warning(train: Source, held_out: Source) -> str | None:
    """Return in a line which images of `held_out` are in `train` too, None where none is known to be.

    They are the same data, the same files (links followed), or in small sets files of the same bytes. What is in tables and packs
    is compared as a whole only: `find_duplicates` reads everything.
    """
    if _same(train, held_out):
        count, shown = len(held_out), "the same data"
    else:
        found = _leaks(train, held_out)
        count, names = len(found), [name_of(held_out, index) for index in found[:_SHOWN]]
        shown = ", ".join(names) + ", …" * (count > _SHOWN)
    if not count:
        return None
    return (
        f"{count:,} of {len(held_out):,} images to evaluate on ({held_out}) are training images too ({shown}): "
        "how good the model is on these says nothing of new ones"
    )


def _same(train: Source, held_out: Source) -> bool:
    """Return whether both are the same examples of the same place."""
    if isinstance(train, DataPath) and isinstance(held_out, DataPath):
        held_out = held_out.model_copy(update={"path": train.path}) if held_out.path.samefile(train.path) else held_out
    return train == held_out


def _leaks(train: Source, held_out: Source) -> list[int]:
    """Return the places of the examples of `held_out` whose files are files of `train`."""
    if not (isinstance(train, Filed) and isinstance(held_out, Filed)):
        return []
    folders: dict[str, str] = {}
    ours = {place: file for place in range(len(held_out)) if (file := held_out.file(place)) is not None}
    by_path: dict[str, list[int]] = defaultdict(list)
    for place, file in ours.items():
        by_path[_resolved(file, folders)].append(place)
    theirs = (file for place in range(len(train)) if (file := train.file(place)) is not None)
    if len(train) + len(held_out) > SMALL:  # one path of the training data in memory at a time
        return sorted({place for file in theirs for place in by_path.get(_resolved(file, folders), ())})
    files = list(theirs)
    found = {place for file in files for place in by_path.get(_resolved(file, folders), ())}
    return sorted(found | _of_the_same_bytes(files, {place: ours[place] for place in ours.keys() - found}))


def _resolved(file: Path, folders: dict[str, str]) -> str:
    """Return the path of a file with links followed; `folders` are those that are known already."""
    if file.is_symlink():
        return os.path.realpath(file)
    folder = str(file.parent)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], file.name)


def _of_the_same_bytes(theirs: list[Path], ours: dict[int, Path]) -> set[int]:
    """Return which of `ours` have the content of one of `theirs`; only files of the same size are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, file in ours.items():
        if size := _size(file):
            by_size[size].append(place)
    known = {_digest(file) for file in theirs if _size(file) in by_size} - {b""}
    sizes = {_size(file) for file in theirs} if known else set[int]()
    return {place for size in by_size.keys() & sizes for place in by_size[size] if _digest(ours[place]) in known}


def _size(file: Path) -> int:
    """Return the size of a file in bytes, 0 where it has gone."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _digest(file: Path) -> bytes:
    """Return the SHA-256 of a file; nothing where it cannot be read, which training will say."""
    try:
        return hashlib.sha256(read_file(file)).digest()
    except ImageError:
        return b""
