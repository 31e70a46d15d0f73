"""Packer: makes the shards of one source, each apart from all others, so that any process can make any of them, and again.

A shard gets its name when it is whole, on the disk and read back; a note of it says so to a packing that goes on later.
"""

import errno
import hashlib
import io
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitlab import files
from vitlab.config import Settings, to_json
from vitlab.data.crew import Advance, at, share
from vitlab.data.image import decode
from vitlab.data.index import shard_name
from vitlab.data.labels import label_at
from vitlab.data.limits import LIMITS, Limits
from vitlab.data.source import Example, Filed, Source, name_of
from vitlab.data.tar import END, MEMBERS, Packed, TarError, pack_example, unpack_example
from vitlab.errors import ImageError, PackError

_MAX_EXAMPLES = 1_000_000 // MEMBERS  # what reads a tar may refuse more than a million members
_PROBES = 256
_USUAL_BYTES = 100_000  # of a photo in a shard, where no example can be read


class Note(Settings):
    """What is known of a finished shard: which examples it is of, the bytes of each that it holds, and which were left out.

    `source` tells whether the examples are still what they were, `limits` are those that they were decoded in.
    """

    first: int
    stop: int
    source: str
    limits: Limits
    sha256: str
    sizes: tuple[int, ...]
    skipped: tuple[tuple[int, str, str], ...] = ()

    def kept(self) -> NDArray[np.int64]:
        """Return the examples that the shard holds."""
        return np.setdiff1d(np.arange(self.first, self.stop), [index for index, _, _ in self.skipped])


@dataclass(frozen=True)
class Packer:
    """Packs `source` into shards of about `shard_bytes` in the folder `target`, with notes on them in the folder `notes`.

    `workers` processes look at the sizes of some examples, none means this one.
    With `skip_bad` images that cannot be decoded are left out; without, a shard with one is not made.
    """

    source: Source
    target: Path
    notes: Path
    shard_bytes: int
    skip_bad: bool
    limits: Limits = LIMITS
    workers: int = 0

    @cached_property
    def _probed(self) -> list[int]:
        """The bytes of some examples in a shard: always the same ones of those that can be read."""
        chosen = np.unique(np.linspace(0, len(self.source) - 1, _PROBES).astype(np.int64)).tolist()
        found = share(self._probe, chosen, self.workers, lambda _: None, self.name)
        return [size for size in found if size] or [_USUAL_BYTES]

    def _probe(self, index: int, advance: Advance) -> int:
        """Return the bytes of an example in a shard, 0 where it cannot be read."""
        del advance
        try:
            with at(index):
                example = self.source.read(index)
        except ImageError:
            return 0
        return len(pack_example(Packed(0, 0, example.key, _file_of(example))))

    @cached_property
    def per_shard(self) -> int:
        """How many examples a shard holds: two digits of what fits, so that one file that changes seldom moves them all."""
        count = max(1, min(_MAX_EXAMPLES, self.shard_bytes * len(self._probed) // sum(self._probed)))
        unit = 10 ** max(0, len(str(count)) - 2)
        return count // unit * unit

    @property
    def shards(self) -> int:
        """How many shards there will be."""
        return -(-len(self.source) // self.per_shard)

    @property
    def expected_bytes(self) -> int:
        """About how much all shards take."""
        return len(self.source) * sum(self._probed) // len(self._probed)

    def range(self, shard: int) -> Sequence[int]:
        """Return the examples that a shard is of."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, len(self.source)))

    def name(self, index: int) -> str:
        """Return what to call an example that is not to be read."""
        return name_of(self.source, index)

    def note(self, shard: int) -> Note | None:
        """Return the note of a finished shard, None where there is none of as many examples."""
        try:
            note = Note.model_validate_json(self._note_path(shard).read_bytes())
        except (OSError, ValueError):
            return None
        return note if range(note.first, note.stop) == self.range(shard) else None

    def kept(self, shard: int) -> Note | None:
        """Return the note of a finished shard that would be made the same again, None where there is none.

        What was left out may have been repaired, or be within other limits; what was not is within wider limits too.
        """
        note = self.note(shard)
        if note is None or note.skipped:
            return None
        before, now = to_json(note.limits), to_json(self.limits)
        fits = all(before[name] <= now[name] for name in now)
        return note if fits and note.source == self._traced(shard) else None

    def is_kept(self, shard: int, advance: Advance) -> bool:
        """Return whether a finished shard would be made the same again."""
        del advance
        return self.kept(shard) is not None

    def make(self, shard: int, advance: Advance) -> list[ImageError]:
        """Make a shard and its note, unless they are there and whole; return the images that cannot be used.

        Raises:
            PackError: the disk is full or failing; nothing is left of the shard.
        """
        target, note = self.target / shard_name(shard), self.kept(shard)
        if note is not None and _is_whole(target, note):
            advance(len(self.range(shard)))
            return []
        draft = target.with_name(f".{target.name}.part")
        bad: list[tuple[int, ImageError]] = []
        try:
            digest, sizes, source = self._write(draft, shard, bad, advance)
            if self.skip_bad or not bad:
                first, stop = self.range(shard)[0], self.range(shard)[-1] + 1
                skipped = tuple((index, error.where, error.what) for index, error in bad)
                note = Note(
                    first=first,
                    stop=stop,
                    source=source,
                    limits=self.limits,
                    sha256=digest,
                    sizes=sizes,
                    skipped=skipped,
                )
                with writing(target):
                    _read_back(draft, note)
                    files.rename(draft, target)
                    files.flush_folder(target.parent)
                    files.write_atomic(self._note_path(shard), note.model_dump_json().encode())
        finally:
            with writing(draft):
                files.remove(draft)
        return [error for _, error in bad]

    def _note_path(self, shard: int) -> Path:
        return self.notes / f"{shard:06d}.json"

    def _write(
        self, draft: Path, shard: int, bad: list[tuple[int, ImageError]], advance: Advance
    ) -> tuple[str, tuple[int, ...], str]:
        """Write the runs of a shard; return the SHA-256 of all, the bytes of each, and what `_traced` returns.

        What cannot be decoded is added to `bad`.
        """
        digest, sizes, trace = hashlib.sha256(), list[int](), hashlib.sha256()
        with writing(draft):
            file = draft.open("wb", buffering=0)
        with file:
            for index in self.range(shard):
                try:
                    with at(index):
                        stamp = self._stamp(index)  # before it is read: a change after that is seen the next time
                        example = self.source.read(index)
                        trace.update(stamp or _content(example))
                        image = _checked(example, self.limits)
                except ImageError as error:
                    bad.append((index, error))
                else:
                    if self.skip_bad or not bad:  # else it is made again, when they are repaired
                        run = pack_example(Packed(index, label_at(self.source.labels, index), example.key, image))
                        _put(file, draft, run)
                        digest.update(run)
                        sizes.append(len(run))
                advance(1)
            _put(file, draft, END)
            digest.update(END)
            with writing(draft):
                os.fsync(file.fileno())
        return digest.hexdigest(), tuple(sizes), trace.hexdigest()

    def _traced(self, shard: int) -> str | None:
        """Return what changes with the examples of a shard, None where one of them cannot be read."""
        trace = hashlib.sha256()
        try:
            for index in self.range(shard):
                with at(index):
                    trace.update(self._stamp(index) or _content(self.source.read(index)))
        except ImageError:
            return None
        return trace.hexdigest()

    def _stamp(self, index: int) -> bytes | None:
        """Return what changes with the file of an example, so that it need not be read, None where it has no file."""
        file = self.source.file(index) if isinstance(self.source, Filed) else None
        if file is None:
            return None
        try:
            status = file.stat()
        except OSError:
            return b"missing"
        stamp = (os.path.abspath(file), status.st_ino, status.st_size, status.st_mtime_ns)
        return hashlib.sha256(repr(stamp).encode()).digest()


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn an error of the disk into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        remedy = f"{'make room' if is_full(error) else 'check the disk and its permissions'}; the same command goes on"
        raise PackError(path, f"cannot be written ({error.strerror or error})", remedy) from None


def is_full(error: OSError) -> bool:
    """Return whether an error of the disk says that there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _put(file: IO[bytes], path: Path, data: bytes) -> None:
    """Write all of `data` to a file without a buffer: one that is left full cannot be closed on a full disk."""
    left = memoryview(data)
    with writing(path):
        while left:
            left = left[file.write(left) :]


def _checked(example: Example, limits: Limits) -> bytes:
    """Return the file of an example, after decoding it."""
    if isinstance(example.data, bytes):
        decode(example.data, example.key, limits)
    return _file_of(example)


def _content(example: Example) -> bytes:
    """Return what changes with the name or the bytes of an example."""
    name = hashlib.sha256(example.key.encode(errors="backslashreplace")).digest()
    return name + hashlib.sha256(_file_of(example)).digest()


def _file_of(example: Example) -> bytes:
    """Return the file of an example; pixels become a PNG."""
    if isinstance(example.data, bytes):
        return example.data
    file = io.BytesIO()
    Image.fromarray(example.data).save(file, "PNG")
    return file.getvalue()


def _is_whole(target: Path, note: Note) -> bool:
    try:
        return target.stat().st_size == sum(note.sizes) + len(END) and files.sha256(target) == note.sha256
    except OSError:
        return False


def _read_back(path: Path, note: Note) -> None:
    """Read a shard from the disk, not from memory where the system allows that, and compare it with what was written."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            for size in note.sizes:
                run = file.read(size)
                digest.update(run)
                unpack_example(run)
        except TarError:
            digest.update(b"damaged")
        digest.update(file.read())
    if digest.hexdigest() != note.sha256:
        raise PackError(path, "reads back other bytes than were written", "the disk or its cable is failing")
