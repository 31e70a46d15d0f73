"""Shards: a packed data set of any size, read by random access from a folder or an object store."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitlab.config import Settings, nearest, parse
from vitlab.data.index import JOB, MANIFEST, Pack
from vitlab.data.path import ALIASES, name_splits
from vitlab.data.source import Example, Part
from vitlab.data.store import is_address, open_store
from vitlab.errors import DataError


class Shards(Settings):
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
    subset: str | None = None
    part: Part | None = None

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        super().__init__(**(fields if path is None else {"path": str(path), **fields}))

    def __str__(self) -> str:
        name = f"{self.path}/{self.subset}" if self.subset else self.path
        if self.part is None:
            return name
        share = self.part.fraction if self.part.side == "test" else 1 - self.part.fraction
        return f"{name} ({self.part.side} {share:.0%})"

    def __copy__(self) -> "Shards":  # what model_copy(update=...) starts from: not opened yet
        return type(self)(**self._settings())

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    @cached_property
    def pack(self) -> "Pack":
        """The opened pack, whatever the part."""
        return Pack(_place(self.path, self.subset))

    @cached_property
    def indices(self) -> NDArray[np.int64] | None:
        """The place of every example of this part in the pack: int64 [len]; None without a part, where it is the index itself."""
        return None if self.part is None else self.part.indices(self.pack.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.pack.manifest.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of every example: int64 [len], or [len, m] padded with -1; without a part, a map of the file."""
        return self._labels

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return self.pack.labels if self.indices is None else self.pack.labels[self.indices]

    def __len__(self) -> int:
        return self.pack.manifest.examples if self.indices is None else len(self.indices)

    def describe(self) -> str:
        """Return in one line what the pack is."""
        found = self.pack.manifest
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
        packed = self.pack.read(index if self.indices is None else int(self.indices[index]))
        label: Any = packed.label
        return Example(packed.image, label, packed.name)

    def split(self, test: float, seed: int = 0) -> "tuple[Shards, Shards]":
        """Return the training side and the test side: `test` is the fraction of every class that is held back.

        This, unlike opening, takes time and memory in proportion to the number of examples.

        Raises:
            DataError: this is one side of a split already.
            SettingsError: `test` is not between 0 and 1.
        """
        if self.part is not None:
            raise DataError(str(self), "is one side of a split already", "split the whole data set")
        held = parse(Part, {"side": "test", "fraction": test, "seed": seed}, "split")
        train = self.model_copy(update={"part": held.model_copy(update={"side": "train"})})
        return train, self.model_copy(update={"part": held})


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
