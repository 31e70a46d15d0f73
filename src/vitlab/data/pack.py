"""Pack: any data set as shards, the same bytes on every run and from any number of processes.

What is done is noted in `.packing`, so that an interrupted packing goes on. The manifest comes last: what has one is whole.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from vitlab import files
from vitlab.config import to_json
from vitlab.data.crew import Advance, share
from vitlab.data.index import INDEX, JOB, LABEL, MANIFEST, PLACE, SUMS, Manifest, Skipped, shard_name
from vitlab.data.limits import LIMITS, Limits
from vitlab.data.open import AnySource, Opened, open_data
from vitlab.data.packer import Note, Packer, is_full, writing
from vitlab.data.path import SPLITS
from vitlab.data.shards import Shards
from vitlab.errors import BadImagesError, DataError, ImageError, PackError

SHARD_BYTES = 256_000_000
"""Large enough for an object store and a spinning disk, small enough to make again after a crash."""
_DRAFT = Path(JOB).parent
_ROWS = 1 << 20


def pack(
    name: str,
    out: Path,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 0,
    *,
    skip_bad: bool = False,
    limits: Limits = LIMITS,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Shards]:
    """Pack the data set `name`, as `open_data` opens it, into the folder `out`; return the packs by split, "" for a whole.

    Ready splits go into the sub-folders train, val and test. Shards have about `shard_bytes`. Every image is decoded once; with
    `skip_bad` those that cannot be are left out and noted in the manifest. `advance` is told how many examples of how many are
    done. `workers` processes share the work and end it where one of them hangs; none means this process, which nobody watches.
    An interrupted packing of the same data into `out` goes on. Examples stay in the order of the source, and the bytes of their
    files are not changed; data that are pixels become PNG.

    Raises:
        DataError: there is no such data set, or `out` holds something else, or another process packs into it.
        PackError: images cannot be decoded (all are named), the disk is full or failing, or a process was killed or hangs.
    """
    sources = _sources(open_data(name))
    _refuse_inside(sources, out)
    total, done = sum(map(len, sources.values())), 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        advance(done, total)

    with _claimed(out, _identity(sources, shard_bytes)):
        packers = {
            split: Packer(
                source, out / split, out / _DRAFT / (split or "whole"), shard_bytes, skip_bad, limits, workers
            )
            for split, source in sources.items()
        }
        if all((packer.target / MANIFEST).exists() for packer in packers.values()):  # only its notes were left
            with writing(out):
                _sweep(out)
            more(total)
            return {split: Shards(out / split) for split in sources}
        _check_room(out, packers)
        bad = {split: _pack_split(packer, workers, more) for split, packer in packers.items()}
        if not skip_bad:
            _refuse_bad(sources, bad, total)
        with writing(out):
            _sweep(out)
    return {split: Shards(out / split) for split in sources}


def _sources(opened: Opened) -> dict[str, AnySource]:
    """Return what to pack by the name of its sub-folder."""
    if opened.whole is not None:
        return {"train" if getattr(opened.whole, "subset", None) else "": opened.whole}
    return ({} if opened.train is None else {"train": opened.train}) | opened.evals


def _refuse_bad(sources: Mapping[str, AnySource], bad: Mapping[str, list[ImageError]], total: int) -> None:
    if any(bad.values()):
        where = ", ".join(str(sources[split]) for split, errors in bad.items() if errors)
        error = BadImagesError(where, [each for errors in bad.values() for each in errors], total)
        raise PackError(error.where, error.what, error.remedy, error.items)


def _pack_split(packer: Packer, workers: int, advance: Advance) -> list[ImageError]:
    """Pack one source and return the images that cannot be used; without `skip_bad` these keep it from being finished."""
    if (packer.target / MANIFEST).exists():
        with closing(share(packer.is_kept, range(packer.shards), workers, lambda _: None, packer.name)) as kept:
            unchanged = all(kept)
        if unchanged:
            advance(len(packer.source))
            return []
        with writing(packer.target):
            files.remove(packer.target / MANIFEST)  # first: what has one is whole
            files.flush_folder(packer.target)
    with writing(packer.target):
        packer.target.mkdir(parents=True, exist_ok=True)
        packer.notes.mkdir(parents=True, exist_ok=True)
    bad: dict[int, list[ImageError]] = {}

    def make(shard: int, tell: Advance) -> tuple[int, list[ImageError]]:
        return shard, packer.make(shard, tell)

    try:
        for shard, errors in share(make, range(packer.shards), workers, advance, packer.name):
            if errors:
                bad[shard] = errors
        found = [error for shard in sorted(bad) for error in bad[shard]]
        if packer.skip_bad or not found:
            with writing(packer.target):
                _finish(packer)
        return found
    finally:
        with writing(packer.target):
            for draft in packer.target.glob(".*.part"):
                files.remove(draft)


def _finish(packer: Packer) -> None:
    """Write the index, the checksums and, last, the manifest."""
    # A packing that was begun before a file was repaired may have come to more shards.
    wanted = {packer.target / shard_name(shard) for shard in range(packer.shards)}
    for path in set(packer.target.glob("shard-*.tar")) - wanted:
        files.remove(path)
    draft = packer.target / f".{INDEX}.part"
    with draft.open("wb") as file:
        index_sha256, examples = _write_index(packer, file)
        file.flush()
        os.fsync(file.fileno())
    if files.sha256(draft) != index_sha256:
        raise PackError(draft, "reads back other bytes than were written", "the disk or its cable is failing")
    if examples == 0:
        for path in wanted:
            files.remove(path)
        raise PackError(str(packer.source), "has no image that can be decoded", "there is nothing to pack")
    lines = [f"{note.sha256}  {shard_name(shard)}\n" for shard, note in _notes(packer)]
    sums = "".join([*lines, f"{index_sha256}  {INDEX}\n"]).encode()
    several = packer.source.labels.shape[1:]
    manifest = Manifest(
        classes=packer.source.classes,
        examples=examples,
        shards=packer.shards,
        most_labels=several[0] if several else None,
        index_sha256=index_sha256,
        sums_sha256=hashlib.sha256(sums).hexdigest(),
        skipped=tuple(Skipped(name=name, reason=what) for _, note in _notes(packer) for _, name, what in note.skipped),
    )
    files.rename(draft, packer.target / INDEX)
    files.write_atomic(packer.target / SUMS, sums)
    text = json.dumps(to_json(manifest), indent=1, ensure_ascii=False)
    files.write_atomic(packer.target / MANIFEST, f"{text}\n".encode())


def _write_index(packer: Packer, file: IO[bytes]) -> tuple[str, int]:
    """Write the places of all examples, then their labels; return the SHA-256 and how many examples there are."""
    digest, examples = hashlib.sha256(), 0
    for shard, note in _notes(packer):
        sizes = np.array(note.sizes, np.uint64)
        places = np.zeros(len(sizes), PLACE)
        places["offset"], places["size"], places["shard"] = np.cumsum(sizes) - sizes, sizes, shard
        digest.update(places.tobytes())
        file.write(places.tobytes())
        examples += len(sizes)
    for _, note in _notes(packer):
        labels = packer.source.labels[note.kept()].astype(LABEL).tobytes()
        digest.update(labels)
        file.write(labels)
    return digest.hexdigest(), examples


def _notes(packer: Packer) -> Iterator[tuple[int, Note]]:
    """Yield the notes of all shards, one after the other in memory."""
    for shard in range(packer.shards):
        note = packer.note(shard)
        if note is None:
            raise PackError(packer.notes, f"lost its note on {shard_name(shard)}", "start the same command again")
        yield shard, note


def _identity(sources: Mapping[str, AnySource], shard_bytes: int) -> bytes:
    """Return what a packing is of, to tell whether one that was interrupted may go on."""
    identity: dict[str, Any] = {"shard_bytes": shard_bytes}
    for split, source in sources.items():
        settings = to_json(source)
        if isinstance(path := getattr(source, "path", None), Path):
            settings["path"] = str(path.resolve())
        digest = hashlib.sha256(json.dumps(source.classes).encode())
        for start in range(0, len(source), _ROWS):
            digest.update(source.labels[start : start + _ROWS].tobytes())
        identity[split] = {"source": settings, "examples": len(source), "labels": digest.hexdigest()}
    return json.dumps(identity, indent=1, sort_keys=True).encode()


def _refuse_inside(sources: Mapping[str, AnySource], out: Path) -> None:
    for source in sources.values():
        path = getattr(source, "path", None)
        if isinstance(path, Path) and path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise DataError(
                out, f"is inside the data set {path}, and would become a part of it", "choose another folder"
            )


def _check_room(out: Path, packers: Mapping[str, Packer]) -> None:
    """Refuse to begin what the disk will not hold."""
    there = sum(path.stat().st_size for path in out.rglob("shard-*.tar"))
    needed = sum(packer.expected_bytes for packer in packers.values()) - there
    free = shutil.disk_usage(out).free
    if needed > free:
        unit, name = (1e9, "GB") if needed >= 1e10 else (1e6, "MB")
        what = f"would take about {needed / unit:,.0f} {name} more, and {free / unit:,.0f} {name} are free"
        raise PackError(out, what, "make room, or choose another disk")


@contextmanager
def _claimed(out: Path, identity: bytes) -> Generator[None]:
    """Hold `out`, new or with a packing of the same identity in it, for this process alone."""
    job = out / JOB
    taken = out.exists() and (not out.is_dir() or any(entry.name != _DRAFT.name for entry in out.iterdir()))
    if taken and not job.exists():
        packed = (out / MANIFEST).exists() or (out.is_dir() and any(out.glob(f"*/{MANIFEST}")))
        taken_by = "is packed already" if packed else "is not empty" if out.is_dir() else "is a file"
        raise DataError(out, taken_by, "choose another folder")
    new = not out.exists()
    lock = _lock_file(out)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(out, "is being packed by another process", "wait, or choose another folder") from None
        if job.exists() and job.read_bytes() != identity:
            what = "holds an unfinished pack of other data, or with another --shard-size"
            raise DataError(out, what, "choose another folder, or remove it")
        try:
            if not job.exists():
                with writing(out):
                    files.write_atomic(job, identity)
            yield
        finally:
            if not any(out.rglob("shard-*.tar")):
                _abandon(out, new)
    finally:
        os.close(lock)


def _lock_file(out: Path) -> int:
    """Return the open file that is locked while `out`, which is made, is packed into."""
    path = (out / JOB).with_name("lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if is_full(error):
            raise PackError(out, f"cannot be made ({error.strerror})", "make room; the same command goes on") from None
        raise DataError(out, f"cannot be made or written ({error.strerror})", "choose another folder") from None


def _abandon(out: Path, new: bool) -> None:
    """Leave nothing where nothing is packed that could be gone on with; `out` itself where it was there before."""
    with suppress(OSError):
        _sweep(out)
    for folder in (*(out / split for split in SPLITS), *([out] if new else [])):
        with suppress(OSError):  # it is not there, or holds something
            folder.rmdir()


def _sweep(out: Path) -> None:
    """Remove the notes; the one that says what is packed last, so that this too can be gone on with."""
    for path in set((out / _DRAFT).iterdir()) - {out / JOB}:
        files.remove(path)
    files.remove(out / _DRAFT)
