"""How fast and in how much memory a B/16 file becomes a model, against the reader of its format alone."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
from timing import Row, compare

import vitlab
from vitlab.weights.convert import convert
from vitlab.weights.load import load

PEAK = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
"""Linux's own mark of the highest memory of a process; getrusage's is inherited from the parent."""
LOADS = {
    ".safetensors": (
        "from safetensors.torch import load_file",
        "held = load_file({path!r}); [tensor.sum() for tensor in held.values()]",
    ),
    ".npz": ("import numpy", "opened = numpy.load({path!r}); held = [opened[name] for name in opened.files]"),
    "ours": (
        "import torch; import vitlab.weights.load; import vitlab.models.classifier",
        "held = vitlab.load({path!r})",
    ),
}


def measure() -> list[Row]:
    """Return the times; the memory, in files of 346 MB, goes into the claims."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        model = vitlab.build("B/16")
        for kind, to, plain in ((".safetensors", "vitlab", _safetensors), (".npz", "official", _npz)):
            path = convert(model, Path(folder) / f"model{kind}", to)
            size = path.stat().st_size
            ours, limit = (memory(how, path) / size for how in ("ours", kind))
            claim = f"loading B/16 from {kind}; peak memory {ours:.2f} of the file against {limit:.2f}"
            rows.append(
                compare(
                    claim, f"{plain.__doc__} (the limit is 1)", lambda p=path: load(p), lambda p=path, f=plain: f(p), 5
                )
            )
    return rows


def memory(how: str, path: Path) -> float:
    """Return by how many bytes the peak memory of a process grows when it loads `path`."""
    imports, work = LOADS[how]
    code = f"import vitlab, torch\n{imports}\n{PEAK}\n{work.format(path=str(path))}\n{PEAK}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    return (after - before) * 1024


def _safetensors(path: Path) -> None:
    """safetensors' own loader and a copy"""
    loaded = safetensors.torch.load_file(path)  # maps the file
    _ = [tensor.clone() for tensor in loaded.values()]


def _npz(path: Path) -> None:
    """numpy's own loader"""
    with np.load(path) as opened:
        _ = [opened[name] for name in opened.files]


if __name__ == "__main__":
    for row in measure():
        print(row.markdown())
