"""Checkpoints that are whole or absent, and known to be whole.

A checkpoint is written into a draft folder, every file flushed, then the list of checksums, then the folder is renamed: the name
`step-000500` appears only when everything under it is on the disk. Reading takes the newest whose files match their checksums.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from vitlab import files
from vitlab.errors import CheckpointError
from vitlab.train.state import TrainState
from vitlab.weights.save import to_bytes

MANIFEST = "manifest.json"
MODEL, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"
KEEP = 2
"""How many checkpoints stay: the newest, and one to fall back on if it rots."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; `rejected` says which newer ones were damaged, and how."""

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
    model = state.model
    contents = {
        MODEL: to_bytes(dict(model.named_parameters()), model.settings, model.image_spec, model.classes),
        OPTIMIZER: safetensors.torch.save(
            {name: t.detach().cpu().contiguous() for name, t in state.optimizer_tensors().items()}
        ),
        PROGRESS: json.dumps({"step": state.step, "metrics_bytes": metrics_bytes}).encode(),
    }
    for name, data in contents.items():
        files.write_bytes(draft / name, data)
    sums = {name: files.sha256(draft / name) for name in contents}
    files.write_bytes(draft / MANIFEST, json.dumps(sums, indent=1).encode())
    files.flush_folder(draft)
    files.remove(final)  # only ever a damaged one that a resumed run passes again
    files.rename(draft, final)
    files.flush_folder(folder)
    if problem(final) is None:
        for old in steps(folder)[:-KEEP]:
            files.remove(old)
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
        return Checkpoint(
            progress["step"],
            progress["metrics_bytes"],
            safetensors.torch.load_file(path / MODEL),
            safetensors.torch.load_file(path / OPTIMIZER),
            tuple(rejected),
        )
    if rejected:
        raise CheckpointError(
            folder, f"no checkpoint is whole ({'; '.join(rejected)})", "start again with another --out"
        )
    return None


def problem(path: Path) -> str | None:
    """Return what is wrong with the checkpoint at `path`, naming the file, or None when every file matches its checksum."""
    try:
        sums: dict[str, str] = json.loads((path / MANIFEST).read_text())
        missing = {MODEL, OPTIMIZER, PROGRESS} - set(sums)
        if missing:
            return f"{path / MANIFEST} does not list {', '.join(sorted(missing))}"
        wrong = [name for name, expected in sums.items() if files.sha256(path / name) != expected]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"{path} is damaged ({error})"
    return f"{path / wrong[0]} does not match its checksum" if wrong else None


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder` by step, oldest first (never by the clock)."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))
