"""Index: what a pack is and where its examples are, of which nothing is read before it is asked for.

A pack is a folder of tar files that webdataset reads too (see `tar`), `index.bin`, which says where every example is,
`shards.json`, which says what the pack is, and `shards.sha256` for `sha256sum --check`. The index is mapped into memory, so that
opening costs the same for a thousand examples and for a thousand million.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitlab import files
from vitlab.config import Settings, parse
from vitlab.data.labels import label_at
from vitlab.data.store import Store, is_address, open_store
from vitlab.data.tar import MAX_RUN, Packed, TarError, unpack_example
from vitlab.errors import DataError, ImageError, SettingsError

MANIFEST, INDEX, SUMS = "shards.json", "index.bin", "shards.sha256"
JOB = ".packing/job.json"
"""Is there, beside the packs of all splits, while they are not finished."""
PLACE = np.dtype([("offset", "<u8"), ("size", "<u4"), ("shard", "<u4")])
"""Where an example is: `size` bytes from `offset` of a shard. The index holds n of these, then n labels (or n × m)."""
LABEL = np.dtype("<i8")
_MAX_MANIFEST = 64 << 20
_PIECE = 8 << 20
_REPACK = "pack the data again, or fetch the pack again"


class Skipped(Settings):
    """An image that was left out when the data were packed, and why."""

    name: str
    reason: str


class Manifest(Settings):
    """What a pack is: `most_labels` is None where every example has one label, else the most labels of any example."""

    version: Literal[1] = 1
    classes: tuple[str, ...]
    examples: Annotated[int, Field(ge=1, le=1 << 40)]
    shards: Annotated[int, Field(ge=1, lt=1 << 32)]
    most_labels: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    index_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    sums_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    skipped: tuple[Skipped, ...] = ()

    @property
    def index_bytes(self) -> int:
        """The size of the index."""
        return self.examples * (PLACE.itemsize + LABEL.itemsize * (self.most_labels or 1))


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:06d}.tar"


class Pack:
    """An opened pack at a path or address: its manifest, where its examples are, and their labels, of which nothing is read yet."""

    def __init__(self, place: str) -> None:
        self._store = open_store(place)
        self.manifest = read_manifest(self._store, place)
        index = _index_file(self._store, self.manifest, place)
        count, several = self.manifest.examples, self.manifest.most_labels
        self.places: NDArray[Any] = np.memmap(index, PLACE, "r", shape=(count,))
        self.labels: NDArray[np.int64] = np.memmap(
            index, LABEL, "r", count * PLACE.itemsize, (count,) if several is None else (count, several)
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices."""
        return self.manifest.classes

    def read(self, index: int) -> Packed:
        """Return the example at `index` of the whole pack.

        Raises:
            ImageError: as `Shards.read`.
        """
        offset, size, shard = map(int, self.places[index])
        if shard >= self.manifest.shards or size > MAX_RUN:
            what = f"says that example {index} has {size:,} bytes in shard {shard} of {self.manifest.shards}: it is damaged"
            raise ImageError(self._store.path(INDEX), what, _REPACK)
        name = shard_name(shard)
        where = f"{self._store.path(name)} (example {index})"
        try:
            run = self._store.read(name, offset, size)
        except FileNotFoundError:
            raise ImageError(where, "is missing", _REPACK) from None
        if len(run) < size:
            what = f"is cut short: {len(run):,} of the {size:,} bytes at {offset:,} are there"
            raise ImageError(where, what, _REPACK)
        try:
            packed = unpack_example(run)
        except TarError as error:
            raise ImageError(where, str(error), _REPACK) from None
        self._check(index, packed, where)
        return packed

    def _check(self, index: int, packed: Packed, where: str) -> None:
        """Refuse an example that is not the one that the index names: a shard or an index of another pack."""
        label = label_at(self.labels, index)
        wanted = f"example {index}, label {label}"
        if packed.label != label or not index <= packed.number <= index + len(self.manifest.skipped):
            what = f"holds example {packed.number}, label {packed.label}, where the index says {wanted}"
            raise ImageError(where, what, f"index and shards are of two packs; {_REPACK}")
        highest = max(label, default=-1) if isinstance(label, tuple) else label
        if highest >= len(self.manifest.classes):
            raise ImageError(where, f"has label {label} of {len(self.manifest.classes)} classes", _REPACK)


def read_manifest(store: Store, place: str) -> Manifest:
    """Return the manifest of the pack at `place`.

    Raises:
        DataError: there is no finished pack.
        SettingsError: it is no manifest of this version.
    """
    try:
        data = store.read(MANIFEST, 0, _MAX_MANIFEST)
    except FileNotFoundError:
        what = f"is no pack: it has no {MANIFEST}"
        raise DataError(place, what, "make one with: vitlab data pack SOURCE OUT") from None
    if len(data) == _MAX_MANIFEST:
        raise DataError(store.path(MANIFEST), f"has {_MAX_MANIFEST >> 20} MiB or more", "this is no manifest of a pack")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SettingsError(store.path(MANIFEST), f"is not JSON ({error})", _REPACK) from None
    if not isinstance(fields, dict):
        raise SettingsError(store.path(MANIFEST), "holds no JSON object", _REPACK)
    return parse(Manifest, fields, store.path(MANIFEST))


def _index_file(store: Store, manifest: Manifest, place: str) -> Path:
    """Return the index as a local file of the right size, fetched into the cache if it is remote."""
    if not is_address(place):
        index = Path(place) / INDEX
        size = index.stat().st_size if index.is_file() else None
        if size != manifest.index_bytes:
            found = (
                "is missing" if size is None else f"has {size:,} bytes where {MANIFEST} says {manifest.index_bytes:,}"
            )
            raise DataError(index, found, _REPACK)
        return index
    index = files.cache_folder() / "shards" / f"{manifest.index_sha256}.index"
    try:
        if not index.is_file() or index.stat().st_size != manifest.index_bytes:
            index.parent.mkdir(parents=True, exist_ok=True)
            _fetch_index(store, manifest, index)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise DataError(index, what, "make room, or set VITLAB_CACHE to another folder") from None
    return index


def _fetch_index(store: Store, manifest: Manifest, index: Path) -> None:
    """Fetch the index to the file `index`, which appears when it is complete and has the right SHA-256."""
    draft, digest, done = index.with_name(f".{index.name}.{os.getpid()}.part"), hashlib.sha256(), 0
    try:
        with draft.open("wb") as file:
            while done < manifest.index_bytes:
                size = min(_PIECE, manifest.index_bytes - done)
                piece = store.read(INDEX, done, size)
                if len(piece) < size:
                    raise DataError(store.path(INDEX), f"is cut short: it has {done + len(piece):,} bytes", _REPACK)
                digest.update(piece)
                file.write(piece)
                done += size
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != manifest.index_sha256:
            raise DataError(store.path(INDEX), f"is not the index that {MANIFEST} names", _REPACK)
        files.rename(draft, index)
        files.flush_folder(index.parent)
    except FileNotFoundError:
        raise DataError(store.path(INDEX), "is missing", _REPACK) from None
    finally:
        files.remove(draft)
