"""Checkpoints that are whole or absent, and known to be whole.

A checkpoint is written into a draft folder, every file flushed, then the list of checksums, then the folder is renamed: the name
`step-000500` appears only when everything under it is on the disk. Reading takes the newest whose files match their checksums.

A model that the ranks share in parts is written by all of them, each some of the tensors, whole, in a file of its own; an index
in the form that other libraries use says which file has what. So it can be read by any number of ranks.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from torch import Tensor

from vitlab import files
from vitlab.config import loads
from vitlab.errors import CheckpointError
from vitlab.ranks import ALONE, Ranks
from vitlab.train.sharding import gathered
from vitlab.train.standing import Standing
from vitlab.train.state import TrainState
from vitlab.weights.save import metadata

VERSION = 2
MANIFEST = "manifest.json"
MODEL, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"
KEEP = 2
"""How many whole checkpoints stay: the newest, and one to fall back on if it rots."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; `rejected` says which newer ones were damaged, and how.

    `metrics_bytes` is the length of the metrics file that belongs to it; `recent`, `skipped` and `standing` are as in `TrainState`.
    The optimizer's file holds the parameters of the task too, averages, and the weights of the best evaluation: the model's file is
    a model and nothing else.
    """

    step: int
    metrics_bytes: int
    recent: list[float]
    skipped: int
    standing: Standing | None
    parameters: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    rejected: tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    """A copy in memory of a state, or of this rank's part of it, as the files of a checkpoint.

    `topic` is what the `ranks` that have a part speak about it under.
    """

    step: int
    ranks: Ranks
    topic: str
    tensors: Mapping[str, tuple[Mapping[str, Tensor], dict[str, str] | None]]
    texts: Mapping[str, str]


def take(state: TrainState, metrics_bytes: int) -> Snapshot | None:
    """Return a copy of `state` to be written, None where another rank has all of it; `metrics_bytes` as in `Checkpoint`.

    A collective: every rank has to call it at the same step.
    """
    ranks, topic = state.ranks, state.ranks.topic()
    counts = {"step": state.step, "metrics_bytes": metrics_bytes, "skipped": state.skipped}
    standing = state.standing and vars(state.standing)
    progress = json.dumps({"version": VERSION, **counts, "recent": state.recent, "standing": standing})
    if not state.sharded:
        if not ranks.first:
            return None
        model, others = (gathered(tensors) for tensors in state.tensors())
        tensors = {MODEL: (model, metadata(state.model)), OPTIMIZER: (others, None)}
        return Snapshot(state.step, ALONE, topic, tensors, {PROGRESS: progress})
    parts: dict[str, tuple[Mapping[str, Tensor], dict[str, str] | None]] = {}
    texts = {PROGRESS: progress}
    for name, held, says in zip((MODEL, OPTIMIZER), state.tensors(), (metadata(state.model), None), strict=True):
        homes = {key: _part(name, index % ranks.world, ranks.world) for index, key in enumerate(held)}
        mine = _part(name, ranks.rank, ranks.world)
        parts[mine] = gathered(held, {key for key, home in homes.items() if home == mine}), says
        texts[_index(name)] = json.dumps({"metadata": {}, "weight_map": homes})
    return Snapshot(state.step, ranks, topic, parts, texts if ranks.first else {})


def _part(name: str, rank: int, world: int) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}-{rank + 1:05d}-of-{world:05d}.{ending}"


def _index(name: str) -> str:
    return f"{name}.index.json"


def draft_of(folder: Path, step: int) -> Path:
    """Return where the checkpoint of `step` is written before it has its name."""
    return folder / f".step-{step:06d}.part"


def prepare(folder: Path, step: int) -> None:
    """Make the empty draft of the checkpoint of `step`."""
    draft = draft_of(folder, step)
    files.remove(draft)
    files.make_folder(draft)


def commit(folder: Path, snapshot: Snapshot) -> Path:
    """Write `snapshot` into its draft, which `prepare` made; the first rank gives it its name and deletes what is old."""
    draft, final, ranks = draft_of(folder, snapshot.step), folder / f"step-{snapshot.step:06d}", snapshot.ranks
    sums = _write_part(draft, snapshot)
    if not ranks.first:
        return final
    files.write_bytes(draft / MANIFEST, json.dumps(sums, indent=1).encode())
    files.flush_folder(draft)
    files.remove(final)  # only ever a damaged one that a resumed run passes again
    files.rename(draft, final)
    files.flush_folder(folder)
    if problem(final) is None:  # read back from the disk before anything older goes
        _remove_old(folder, final)
    return final


def _write_part(draft: Path, snapshot: Snapshot) -> dict[str, str]:
    """Write the files of this rank and return their checksums, on the first rank those of all once they are written.

    Raises:
        OSError: a rank could not write its part.
    """
    sums: dict[str, str] = {}
    failure: OSError | None = None
    try:
        for name, (tensors, says) in snapshot.tensors.items():
            sums[name] = _written(draft / name, safetensors.torch.save(dict(tensors), says))
        for name, text in snapshot.texts.items():
            sums[name] = _written(draft / name, text.encode())
    except (OSError, MemoryError) as error:
        failure = error if isinstance(error, OSError) else OSError("not enough memory")
    for rank, (theirs, reason) in enumerate(snapshot.ranks.report(snapshot.topic, [sums, failure and str(failure)])):
        sums |= theirs
        if reason and failure is None:
            failure = OSError(f"rank {rank}: {reason}")
    if failure is not None:
        raise failure
    return sums


def _written(path: Path, data: bytes) -> str:
    files.write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def write(folder: Path, state: TrainState, metrics_bytes: int) -> Path:
    """Write `state`, which one rank has all of, as a new checkpoint in `folder`, and wait until it is on the disk."""
    snapshot = take(state, metrics_bytes)
    assert snapshot is not None
    prepare(folder, state.step)
    return commit(folder, snapshot)


def read(folder: Path, ranks: Ranks = ALONE) -> Checkpoint | None:
    """Return the newest whole checkpoint in `folder`, None where none was written yet; sweep what an interrupted write left.

    The first of the `ranks` chooses it, and every rank reads all of it.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged, or it was written by another version.
    """
    found, rejected = _newest(folder) if ranks.first else (None, [])
    name = ranks.tell(found.name if found else None)
    if name is None:
        return None
    return load(folder / name, tuple(rejected))


def load(path: Path, rejected: tuple[str, ...] = ()) -> Checkpoint:
    """Return the checkpoint at `path`, whose files were compared with their checksums before (see `problem`).

    Raises:
        CheckpointError: it was written by another version.
    """
    told = json.loads((path / PROGRESS).read_text())
    if told.pop("version", 1) != VERSION:
        what = "was written by another version of vitlab"
        raise CheckpointError(path, what, "go on with that version, or start a new run from its weights")
    tensors = _tensors(path, OPTIMIZER)
    task = {key: tensors.pop(key) for key in list(tensors) if "/" not in key}  # the optimizer's have a kind
    standing = told.pop("standing")
    told["standing"] = standing and Standing(**standing)
    return Checkpoint(**told, parameters=_tensors(path, MODEL) | task, optimizer=tensors, rejected=rejected)


def _newest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint, and what is wrong with those after it."""
    for draft in folder.glob(".step-*.part"):
        files.remove(draft)
    rejected: list[str] = []
    for path in reversed(steps(folder)):
        if (reason := problem(path)) is None:
            return path, rejected
        rejected.append(reason)
    if rejected:
        raise CheckpointError(
            folder, f"no checkpoint is whole ({'; '.join(rejected)})", "start again with another --out"
        )
    return None, []


def _tensors(path: Path, name: str) -> dict[str, Tensor]:
    if (path / name).exists():
        return safetensors.torch.load_file(path / name)
    found: dict[str, Tensor] = {}
    for part in dict.fromkeys(_homes(path, name).values()):
        found |= safetensors.torch.load_file(path / part)
    return found


def _homes(path: Path, name: str) -> dict[str, str]:
    return cast(dict[str, str], loads((path / _index(name)).read_text())["weight_map"])


def problem(path: Path) -> str | None:
    """Return what is wrong with the checkpoint at `path`, naming the file, or None when every file matches its checksum."""
    try:
        sums: Any = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"{path / MANIFEST} is damaged ({error})"
    listed = set(cast(dict[str, str], sums)) if isinstance(sums, dict) else set[str]()
    if PROGRESS not in listed or not all({name, _index(name)} & listed for name in (MODEL, OPTIMIZER)):
        return f"{path / MANIFEST} does not list every file"
    for name in sorted(listed):
        try:
            if files.sha256(path / Path(name).name) != sums[name]:
                return f"{path / name} does not match its checksum"
        except OSError as error:
            return f"{path / name} cannot be read ({error.strerror})"
    for name in (MODEL, OPTIMIZER):
        if name not in listed and not set(_homes(path, name).values()) <= listed:
            return f"{path / MANIFEST} does not list every file"
    return None


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder` by step, oldest first (never by the clock)."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """Return how many updates had been made at the checkpoint `path`."""
    return int(path.name.removeprefix("step-"))


def _remove_old(folder: Path, newest: Path) -> None:
    """Remove the checkpoints before `newest` but for the last whole ones that `KEEP` allows; damaged ones do not count."""
    kept = 1
    for old in reversed([path for path in steps(folder) if step_of(path) < step_of(newest)]):
        if kept < KEEP and problem(old) is None:
            kept += 1
        else:
            files.remove(old)
