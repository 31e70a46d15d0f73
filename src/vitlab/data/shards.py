"""Shards: a packed data set of any size, read by random access from a folder or an object store."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vitlab.config import nearest
from vitlab.data.index import JOB, MANIFEST, Pack
from vitlab.data.path import ALIASES, Listed, name_splits
from vitlab.data.source import Example
from vitlab.data.store import is_address, open_store
from vitlab.errors import DataError


class Shards(Listed):
    """A pack made by `vitlab data pack`, at a local path or an address that fsspec opens ("s3://bucket/imagenet").

    `subset` names the sub-folder of a ready split; `part` is one side of a split made by us. Opening reads a small file and maps
    the index, so that it costs the same time and memory for a thousand examples and for a thousand million; `labels` is a
    read-only map of the file. The index of a remote pack is fetched once, into the cache. Every example is one read, and checked:
    its tar headers, its place and its label must be those of the index. A pickled `Shards` holds its settings only.

    Raises, on first use:
        DataError: there is no pack, it is not finished or not whole, or its address cannot be read.
    """

    type: Literal["Shards"] = "Shards"
    path: str

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        if path is not None:
            fields["path"] = str(path)
        super().__init__(**fields)

    @property
    def place(self) -> str:
        """The path or address, with the name of the subset."""
        return f"{self.path}/{self.subset}" if self.subset else self.path

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": self._settings()}

    @cached_property
    def listing(self) -> "Pack":
        """The opened pack, whatever the part."""
        return Pack(_place(self.path, self.subset))

    def describe(self) -> str:
        """Return in one line what the pack is."""
        found = self.listing.manifest
        left_out = f", {len(found.skipped):,} left out" if found.skipped else ""
        shards = "1 shard" if found.shards == 1 else f"{found.shards:,} shards"
        return f"{found.examples:,} images{left_out}, {len(found.classes):,} classes, {shards}"

    def read(self, index: int) -> Example:
        """Return the example at `index`; its key is what it was called before it was packed.

        Raises:
            ImageError: its shard is missing, cut short or damaged, or is none of this pack.
            DataError: its shard cannot be reached.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self}: no example {index} of {len(self)}")
        packed = self.listing.read(self.place_of(index))
        label: Any = packed.label
        return Example(packed.image, label, packed.name)


def find_splits(path: str) -> dict[str, str]:
    """Return the ready splits of the folder or address `path`: "train", "val", "test" to the sub-folders that are packs.

    Raises:
        DataError: two sub-folders are the same split, or the address cannot be read.
    """
    store = open_store(path)
    return name_splits(Path(path), [name for name in sorted(ALIASES) if store.has(f"{name}/{MANIFEST}")])


def is_pack(path: Path) -> bool:
    """Return whether the folder `path` is a pack, holds packs as ready splits, or is one that is not finished."""
    return (path / MANIFEST).is_file() or _is_unfinished(path) or bool(find_splits(str(path)))


def refuse_unfinished(path: Path) -> None:
    """Raise a DataError if the pack at `path` is not finished, or one of its ready splits is not."""
    if _is_unfinished(path):
        raise DataError(path, "is a pack that is not finished", "go on with the same `vitlab data pack` command")


def _is_unfinished(path: Path) -> bool:
    in_progress = (path.parent / JOB).is_file() and not (path / MANIFEST).is_file()  # one of several splits
    return in_progress or (path / JOB).is_file()


def _place(path: str, subset: str | None) -> str:
    """Return where the pack of a subset is; "val" also finds "valid", as in a folder of class folders."""
    splits = find_splits(path)
    remote = is_address(path)  # then "not there" may be "not reached": reading will say which
    if subset is None and (splits or not (remote or open_store(path).has(MANIFEST))):
        raise _no_pack(path, splits)
    if subset is None:
        return path
    name = splits.get(subset, subset)
    if name not in splits.values() and (splits or not remote):
        refuse_unfinished(Path(path))
        raise DataError(path, f"has no subset '{subset}'", nearest(subset, list(splits)) or "leave subset out")
    return f"{path.rstrip('/')}/{name}"


def _no_pack(path: str, splits: dict[str, str]) -> DataError:
    if splits:
        return DataError(path, f"holds ready splits: {', '.join(splits)}", "choose one by subset")
    if not Path(path).is_dir():
        return DataError(path, "does not exist", "check the path")
    refuse_unfinished(Path(path))
    return DataError(path, f"is no pack: it has no {MANIFEST}", "make one with: vitlab data pack SOURCE OUT")
