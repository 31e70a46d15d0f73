"""Checkpoints that are whole or absent, and known to be whole.

A checkpoint is written into a draft folder, every file flushed, then the list of checksums, then the folder is renamed: the name
`step-000500` appears only when everything under it is on the disk. Reading takes the newest whose files match their checksums.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors.torch
from torch import Tensor

from vitlab import files
from vitlab.errors import CheckpointError
from vitlab.train.state import TrainState
from vitlab.weights.save import to_bytes

MANIFEST = "manifest.json"
FILES = MODEL, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"
KEEP = 2
"""How many whole checkpoints stay: the newest, and one to fall back on if it rots."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; `rejected` says which newer ones were damaged, and how.

    The optimizer's file holds the parameters of the task too: the model's file is a model and nothing else.
    """

    step: int
    metrics_bytes: int
    parameters: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    rejected: tuple[str, ...]


def write(folder: Path, state: TrainState, metrics_bytes: int) -> Path:
    """Write `state` as a new checkpoint in `folder` and delete those that are no longer needed.

    `metrics_bytes` is the length of the metrics file that belongs to this state.
    """
    final = folder / f"step-{state.step:06d}"
    draft = folder / f".{final.name}.part"
    files.remove(draft)
    files.make_folder(draft)
    contents = {
        MODEL: to_bytes(state.model),
        OPTIMIZER: _bytes({**state.optimizer_tensors(), **dict(state.task.named_parameters(prefix="task"))}),
        PROGRESS: json.dumps({"step": state.step, "metrics_bytes": metrics_bytes}).encode(),
    }
    for name, data in contents.items():
        files.write_bytes(draft / name, data)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    files.write_bytes(draft / MANIFEST, json.dumps(sums, indent=1).encode())
    files.flush_folder(draft)
    files.remove(final)  # only ever a damaged one that a resumed run passes again
    files.rename(draft, final)
    files.flush_folder(folder)
    if problem(final) is None:  # read back from the disk before anything older goes
        _remove_old(folder, final)
    return final


def read(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint in `folder`, None where none was written yet; sweep what an interrupted write left.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    for draft in folder.glob(".step-*.part"):
        files.remove(draft)
    rejected: list[str] = []
    for path in reversed(steps(folder)):
        if (reason := problem(path)) is not None:
            rejected.append(reason)
            continue
        progress = json.loads((path / PROGRESS).read_text())
        tensors = safetensors.torch.load_file(path / OPTIMIZER)
        task = {name: tensors.pop(name) for name in list(tensors) if "/" not in name}  # the optimizer's have a kind
        return Checkpoint(
            progress["step"],
            progress["metrics_bytes"],
            safetensors.torch.load_file(path / MODEL) | task,
            tensors,
            tuple(rejected),
        )
    if rejected:
        raise CheckpointError(
            folder, f"no checkpoint is whole ({'; '.join(rejected)})", "start again with another --out"
        )
    return None


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def problem(path: Path) -> str | None:
    """Return what is wrong with the checkpoint at `path`, naming the file, or None when every file matches its checksum."""
    try:
        sums = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"{path / MANIFEST} is damaged ({error})"
    if not isinstance(sums, dict) or not set(FILES) <= set(cast(dict[str, str], sums)):
        return f"{path / MANIFEST} does not list every file"
    for name in FILES:
        try:
            if files.sha256(path / name) != sums[name]:
                return f"{path / name} does not match its checksum"
        except OSError as error:
            return f"{path / name} cannot be read ({error.strerror})"
    return None


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder` by step, oldest first (never by the clock)."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove_old(folder: Path, newest: Path) -> None:
    """Remove the checkpoints before `newest` but for the last whole ones that `KEEP` allows; damaged ones do not count."""
    kept = 1
    for old in reversed([path for path in steps(folder) if _step(path) < _step(newest)]):
        if kept < KEEP and problem(old) is None:
            kept += 1
        else:
            files.remove(old)
