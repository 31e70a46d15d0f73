"""The run folder: settings, environment, metrics, checkpoints, and the finished model; one owner at a time."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import socket
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import IO, Any, cast
from weakref import WeakSet

import safetensors.torch
import torch

from vitlab import files
from vitlab.config import read_json
from vitlab.errors import CheckpointError, RunFolderError
from vitlab.ranks import ALONE, Ranks
from vitlab.train import checkpoint
from vitlab.train.saver import Saver
from vitlab.train.sharding import gathered
from vitlab.train.state import TrainState
from vitlab.weights.save import metadata

CONFIG, ENVIRONMENT, METRICS, LOCK = "config.json", "environment.json", "metrics.jsonl", "LOCK"
EVENTS = "events.jsonl"
CHECKPOINTS, MODEL = "checkpoints", "model.safetensors"
BAD_IMAGES, CLASS_WEIGHTS = "bad_images.txt", "class_weights.json"
MANIFEST = "manifest.json"
"""The checksums of what will not change any more: the settings and environments, in the end also the metrics and the model."""
OUTCOME = "outcome.json"
"""What a finished run of a study came to; its checkpoints, and of a trial the model, are removed."""

log = logging.getLogger("vitlab")

_held: WeakSet[IO[str]] = WeakSet()
"""Locks that this process holds. A forked worker lets go of them, else it would hold them on when this process is killed."""
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in list(_held)])


class RunFolder:
    """An open run folder, locked against a second process until it is closed."""

    def __init__(self, path: Path, lock: IO[str] | None, ranks: Ranks = ALONE) -> None:
        self.path, self.ranks = path, ranks
        self._lock = lock
        self._saver = Saver(path / CHECKPOINTS, ranks)
        self._metrics: FileIO | None = None
        self._unwritten = bytearray()
        try:
            if lock is not None:
                self._metrics = (path / METRICS).open("ab", buffering=0)
        except OSError:
            cast(IO[str], lock).close()
            raise

    @classmethod
    def create(
        cls, path: Path, config: Mapping[str, Any], environment: Mapping[str, Any], ranks: Ranks = ALONE
    ) -> "RunFolder":
        """Make the folder `path` with the resolved settings in it; of several `ranks` the first one does.

        Raises:
            RunFolderError: the folder exists and is not empty, cannot be written, or is in use.
        """
        refuse_taken(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            try:
                (path / CHECKPOINTS).mkdir(exist_ok=True)
                contents = {ENVIRONMENT: pretty(environment), CONFIG: pretty(config)}
                sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
                files.write_atomic(path / MANIFEST, pretty(sums))
                for name, data in contents.items():  # the settings last: what has them is a run
                    files.write_atomic(path / name, data)
            except OSError:
                lock.close()
                raise
            return cls(path, lock, ranks)
        except OSError as error:
            raise RunFolderError(path, f"cannot be written ({error.strerror})", "choose another --out") from None

    @classmethod
    def reopen(cls, path: Path, ranks: Ranks = ALONE) -> "RunFolder":
        """Open the folder of a run to continue it; of several `ranks` the first one does.

        Raises:
            RunFolderError: the folder is no run, cannot be written, or is in use.
        """
        if not is_run(path):
            raise RunFolderError(
                path, "is not a run (it has no config.json)", "start it without --resume, or name DATA"
            )
        try:
            return cls(path, _lock(path), ranks)
        except OSError as error:
            raise RunFolderError(path, f"cannot be written ({error.strerror})", "check its permissions") from None

    @classmethod
    def follow(cls, path: Path, ranks: Ranks) -> "RunFolder":
        """Return the folder as the ranks behind the first have it, which holds its lock: they log nothing."""
        return cls(path, None, ranks)

    @property
    def finished(self) -> bool:
        """Whether the run has ended and its model is written."""
        return (self.path / MODEL).exists()

    def config(self) -> dict[str, Any]:
        """Return the resolved settings that the run was started with."""
        return read_json(self.path / CONFIG)

    def environment(self) -> dict[str, Any]:
        """Return what the run was started on."""
        return read_json(self.path / ENVIRONMENT)

    def log(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """Add one line a value to the metrics."""
        if self._metrics is None:
            return
        for name, value in values.items():
            line = json.dumps({"step": step, "images": images, "name": name, "value": value})
            self._unwritten += line.encode() + b"\n"
        self._write_metrics(self._metrics)

    def _write_metrics(self, metrics: FileIO) -> None:
        """Write the lines that are not in the file yet; where the disk is full they wait for the next ones."""
        try:
            while self._unwritten:
                del self._unwritten[: metrics.write(self._unwritten)]
        except OSError as error:
            log.warning("%s: cannot be written (%s); training goes on", self.path / METRICS, error.strerror)

    def note(self, event: Mapping[str, Any]) -> None:
        """Add an event with the images that it is about to the events file."""
        if self._lock is not None:
            with (self.path / EVENTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")

    def save_checkpoint(self, state: TrainState) -> None:
        """Begin to write a checkpoint of `state`, the metrics up to here on the disk first.

        A collective: every rank has to call it at the same step.
        """
        written = 0
        if self._metrics is not None:
            self._write_metrics(self._metrics)
            with contextlib.suppress(OSError):  # a full disk; the checkpoint will say so
                os.fsync(self._metrics.fileno())
            written = self._metrics.tell()
        self._saver.save(state, written)

    def wait_for_checkpoint(self) -> None:
        """Wait until the last checkpoint is written, or could not be."""
        self._saver.wait()

    def finish_checkpoint(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        self._saver.finish()

    def restore_checkpoint(self, state: TrainState) -> tuple[str, ...]:
        """Set `state` to the newest whole checkpoint and cut the metrics to what belongs to it; return what was damaged.

        Where no checkpoint was written yet, the state stays at its start. The first rank chooses for all.

        Raises:
            CheckpointError: every checkpoint is damaged, or it was written by another version.
        """
        found = checkpoint.read(self.path / CHECKPOINTS, state.ranks)
        self._cut_events(found.step if found else 0)
        if found is not None:
            told = (found.recent, found.skipped, found.standing)
            state.restore(found.step, found.parameters, found.optimizer, *told)
        if self._metrics is not None:
            self._cut_metrics(self._metrics, found.metrics_bytes if found else 0)
        return found.rejected if found else ()

    def _cut_metrics(self, metrics: FileIO, size: int) -> None:
        """Leave the first `size` bytes of the metrics, less where some of these are gone."""
        if (there := metrics.seek(0, os.SEEK_END)) < size:
            log.warning("%s: %d bytes of it are missing; training goes on", self.path / METRICS, size - there)
        metrics.truncate(min(size, there))  # more would be filled with zeros
        metrics.seek(0, os.SEEK_END)  # what is saved before anything is logged counts these bytes

    def _cut_events(self, step: int) -> None:
        """Take out the events after `step`: those updates are made again."""
        path = self.path / EVENTS
        if self._lock is None or not path.exists():
            return
        lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        if kept:
            files.write_atomic(path, "".join(kept).encode())
        else:
            files.remove(path)

    def write(self, name: str, text: str) -> None:
        """Write the file `name`, once for all ranks; its name appears only when it is complete."""
        if self._lock is not None:
            files.write_atomic(self.path / name, text.encode())

    def save_model(self, state: TrainState) -> None:
        """Write the finished model; its name appears only when it is complete.

        A collective: every rank has to call it where parameters are sharded.

        Raises:
            CheckpointError: it could not be written.
        """
        tensors = gathered(dict(state.model.named_parameters()), None if self._lock is not None else ())
        try:
            if self._lock is not None:
                data = safetensors.torch.save(tensors, metadata(state.model))
                self._list_files({MODEL: hashlib.sha256(data).hexdigest()}, METRICS, CLASS_WEIGHTS, BAD_IMAGES)
                files.write_atomic(self.path / MODEL, data)
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise CheckpointError(self.path / MODEL, what, "make room, and go on with --resume") from None

    def keep_config(self, step: int, config: Mapping[str, Any] | None) -> None:
        """Keep the settings that the updates up to `step` were made with, and write `config` for those after it.

        None goes on with the settings that there are. `config_at` finds what is kept.
        """
        if self._lock is None:
            return
        later = [each for each in _replaced(self.path) if _step_of(each) > step]  # their updates will be made again
        made_with = later[0] if later else self.path / CONFIG
        name = f"config-until-step-{step:06d}.json"
        if (config is not None or later) and not (self.path / name).exists():
            self.write(name, made_with.read_text(encoding="utf-8"))
        for each in later:
            files.remove(each)
        if config is not None:
            self.write(CONFIG, pretty(config).decode())

    def note_environment(self, step: int, environment: Mapping[str, Any]) -> None:
        """Write what the run goes on with from `step` on, unless that is as before; `environment_at` finds it."""
        if self._lock is None:
            return
        for path in _noted(self.path):
            if _step_of(path) > step:  # that will be made again
                files.remove(path)
        if environment_at(self.path, step) != environment:
            self.write(f"environment-{step:06d}.json", pretty(environment).decode())
        self._list_files({})

    def _list_files(self, sums: Mapping[str, str], *others: str) -> None:
        """Write the list of checksums: `sums`, and those of the settings, the environments and the `others` that are there."""
        earlier = [path.name for path in (*_noted(self.path), *_replaced(self.path))]
        names = [CONFIG, ENVIRONMENT, *earlier, *others]
        found = {name: files.sha256(self.path / name) for name in names if (self.path / name).exists()}
        files.write_atomic(self.path / MANIFEST, pretty({**found, **sums}))

    def close(self) -> None:
        """Release the folder."""
        if self._metrics is not None:
            self._metrics.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not KeyboardInterrupt:  # that one ends at once, and leaves the checkpoint before
            self._saver.wait()
        self.close()


def is_run(path: Path) -> bool:
    """Return whether a run was started in the folder `path`."""
    return (path / CONFIG).exists()


def refuse_taken(path: Path) -> None:
    """Refuse to make a run where anything is but what a start that was cut short has left.

    Raises:
        RunFolderError: the folder exists and is not empty, or cannot be read.
    """
    left = {LOCK, CHECKPOINTS, ENVIRONMENT, MANIFEST, *(f".{name}.part" for name in (ENVIRONMENT, MANIFEST, CONFIG))}
    try:
        if not path.exists():
            return
        free = path.is_dir() and all(entry.name in left for entry in path.iterdir())
        free = free and not any((path / CHECKPOINTS).glob("*"))
    except OSError as error:
        raise RunFolderError(path, f"cannot be read ({error.strerror})", "choose another --out") from None
    if not free:
        raise RunFolderError(path, "already exists", "choose another --out, or continue that run with --resume")


def environment_at(path: Path, step: int) -> dict[str, Any]:
    """Return what the run in the folder `path` made update number `step + 1` on."""
    noted = [each for each in _noted(path) if _step_of(each) <= step]
    return read_json(noted[-1] if noted else path / ENVIRONMENT)


def config_at(path: Path, step: int) -> Path:
    """Return the file with the settings that the run in the folder `path` made update number `step + 1` with."""
    return next((each for each in _replaced(path) if _step_of(each) > step), path / CONFIG)


def _replaced(path: Path) -> list[Path]:
    """Return the settings that a run had until it was resumed with others, by step."""
    return _by_step(path, "config-until-step-*.json")


def _noted(path: Path) -> list[Path]:
    """Return the descriptions of what a run was resumed on, by step."""
    return _by_step(path, "environment-*.json")


def _by_step(path: Path, pattern: str) -> list[Path]:
    found = [each for each in path.glob(pattern) if each.stem.rpartition("-")[2].isdigit()]
    return sorted(found, key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run's metrics file, oldest first; a last line that was cut short is left out."""
    lines = (path / METRICS).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def describe_environment(device: torch.device, workers: int, world_size: int = 1) -> dict[str, Any]:
    """Return what a run's numbers depend on besides its settings: versions, machine, device and thread count."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "workers": workers,
        "world_size": world_size,
    }


def pretty(data: Mapping[str, Any]) -> bytes:
    """Return `data` as JSON for people, UTF-8."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _lock(path: Path) -> IO[str]:
    """Take the folder's lock, which the system releases when this process ends, however it ends."""
    lock = (path / LOCK).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        lock.close()
        raise RunFolderError(path, f"is in use by {owner}", "wait for it, or choose another --out") from None
    _held.add(lock)
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock
