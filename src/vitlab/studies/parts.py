"""Parts: a table made piece by piece in a folder beside it, so that what interrupts the work costs a piece at most.

The folder `.NAME.parts` holds `job.json`, which says what the table is of, and a parquet file for every finished part. Each is
written whole or not at all, by any process; when all are there, they are joined, the table gets its name, and the folder goes.
"""

import errno
import fcntl
import io
import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from vitlab import files
from vitlab.config import read_json
from vitlab.errors import DataError, PredictionError
from vitlab.studies.predicted import Write
from vitlab.studies.scoresheet import check_free

_parquet: Any = pyarrow.parquet  # the stubs of pyarrow are incomplete
_JOB, _LOCK, _JOINED = "job.json", "lock", "joined"


@dataclass(frozen=True)
class Parts:
    """The parts of the table `out`, of `rows` rows, each of `part_rows` rows but the last."""

    out: Path
    rows: int
    part_rows: int

    @property
    def folder(self) -> Path:
        """Where the parts are until they are joined; hidden, so that no pattern and no data set takes it for images."""
        return _folder_of(self.out)

    @property
    def _count(self) -> int:
        return -(-self.rows // self.part_rows)

    def range(self, part: int) -> range:
        """Return the rows of a part."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.rows))

    def missing(self) -> list[int]:
        """Return the parts that are not there, or not whole."""
        return [part for part in range(self._count) if not self._is_whole(part)]

    def has(self, part: int) -> bool:
        """Return whether a part is there."""
        return self._path(part).exists()

    def write(self, part: int, table: Any) -> None:
        """Write a part.

        Raises:
            PredictionError: the disk is full or failing.
        """
        content = io.BytesIO()
        _parquet.write_table(table, content, compression="zstd")
        with writing(self.folder):
            files.write_atomic(self._path(part), content.getvalue())

    def join(self, schema: Any, made_by: Mapping[str, Any], write: Write) -> int:
        """Write the whole table and give it its name, then remove the parts; return how many rows have an error.

        Raises:
            PredictionError: the disk is full or failing, or a part cannot be read.
            DataError: there is a file of that name by now.
        """
        draft, bad = self.out.with_name(f".{self.out.name}.part"), [0]
        try:
            with writing(self.out):
                with draft.open("wb") as file:
                    write(self._tables(bad), schema, made_by, file)
                    file.flush()
                    os.fsync(file.fileno())
                check_free(self.out)
                files.write_bytes(self.folder / _JOINED, b"")
                files.rename(draft, self.out)
                files.flush_folder(self.out.absolute().parent)
        finally:
            with writing(draft):
                files.remove(draft)
        _sweep(self.folder)
        return sum(bad)

    def _tables(self, bad: list[int]) -> Iterator[Any]:
        """Yield all parts in order, and add to `bad` how many rows of each have an error."""
        for part in range(self._count):
            try:
                with _parquet.ParquetFile(self._path(part)) as file:
                    table = file.read(use_threads=False)
            except (OSError, pa.ArrowException) as error:
                what = f"cannot be read ({' '.join(str(error).split())})"
                raise PredictionError(self._path(part), what, "remove it; the same command makes it again") from None
            bad.append(len(table) - table["error"].null_count)
            yield table

    @contextmanager
    def claimed(self, job: Mapping[str, Any]) -> Generator[None]:
        """Hold the folder, new or with parts of the same `job` in it, for this command alone.

        Raises:
            DataError: it has parts of something else, which is said, or another process is at work in it.
            PredictionError: the disk is full or failing.
        """
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
            lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which no process that reads for this one inherits
            except (BlockingIOError, PermissionError):
                raise DataError(self.out, "is being made by another process", "wait, or choose another --out") from None
            with self._kept():
                if self._any() and (self.folder / _JOB).exists():
                    self._refuse_other(job)
                else:
                    with writing(self.folder):
                        files.write_atomic(self.folder / _JOB, json.dumps(job, indent=1).encode())
                yield
        finally:
            os.close(lock)

    @contextmanager
    def _kept(self) -> Generator[None]:
        """Remove the folder in the end if nothing is done that could be gone on with."""
        try:
            yield
        finally:
            if self.folder.exists() and not self._any():
                with suppress(OSError):
                    files.remove(self.folder)

    def _any(self) -> bool:
        return any(self.folder.glob("*.parquet"))

    def _refuse_other(self, job: Mapping[str, Any]) -> None:
        """Refuse to go on with parts of another job; what differs is named."""
        before = stored(self.out)
        changed = [name for name in {**before, **job} if before.get(name) != job.get(name)]
        if changed:
            told = ", ".join(_difference(name, before.get(name), job.get(name)) for name in changed)
            what = f"holds a part of other predictions: {told}"
            raise DataError(self.folder, what, "give the command of before, or another --out, or remove that folder")

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:08d}.parquet"

    def _is_whole(self, part: int) -> bool:
        if not self.has(part):
            return False
        try:
            return _parquet.read_metadata(self._path(part)).num_rows == len(self.range(part))
        except (OSError, pa.ArrowException):
            return False


def _folder_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _sweep(folder: Path) -> None:
    """Remove the parts; what says that they are joined goes last."""
    with writing(folder):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == _JOINED):
            files.remove(path)
        files.remove(folder)


def stored(out: Path) -> dict[str, Any]:
    """Return the job that the parts of the table `out` are of; nothing where there are none."""
    path = _folder_of(out) / _JOB
    return read_json(path) if path.exists() else {}


def sweep_finished(out: Path) -> None:
    """Remove the parts of the table `out` where it is finished, and only they were left."""
    if out.exists() and (_folder_of(out) / _JOINED).exists():
        _sweep(_folder_of(out))


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn an error of the disk into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = f"{'make room' if full else 'check the disk and its permissions'}; the same command goes on"
        raise PredictionError(path, f"cannot be written ({error.strerror or error})", remedy) from None


def _difference(name: str, before: object, now: object) -> str:
    """Return in words how a fact of the job differs; of what is long, or a hash, that it does."""
    short = all(len(str(value)) <= 20 for value in (before, now))
    return f"{name} was {before} and is {now}" if short else f"{name} differs"
