"""Masked patch prediction on small photos: what it learns, and whether fine-tuning from it beats starting fresh.

    python benchmarks/masked.py CIFAR10 OUT

CIFAR10 is a folder of parquet files with a train and a test part. Everything is run by the command line into folders in OUT, and
what is there already is not run again; the table is printed and written to OUT/table.md.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from vitlab.data.loader import pixels_of
from vitlab.data.open import open_data
from vitlab.data.source import Source
from vitlab.nn.grid import Size
from vitlab.nn.patches import to_patches
from vitlab.train.masked import COLOURS, colours

PATCH = 8
MODEL = ["--model", f"Mini/{PATCH}", "--image-size", "32", "--batch-size", "128", "--eval-every", "1000"]
MASKED = ["--recipe", "masked", "--steps", "3000", "--lr", "0.001"]
TUNED = ["--steps", "600", "--lr", "0.001", "--seed"]
SCRATCH = [
    *("--set", "train.optimizer=Adam", "--set", "train.objective.label_smoothing=0.1"),
    *("--set", 'augment.crop={"type": "InceptionCrop", "area": [0.35, 1.0]}'),
]
"""What `finetune` without weights uses, so that both rows differ in their first weights alone."""
SEEDS = (0, 1, 2)


def main(data: str, out: Path) -> None:
    """Run what is missing and write the table."""
    masked = run(out / "masked", "pretrain", data, *MODEL, *MASKED)
    rows = {
        "from masked patch prediction": [
            run(
                out / f"tuned-{seed}",
                "finetune",
                data,
                "--weights",
                str(out / "masked"),
                *SCRATCH,
                *MODEL[2:],
                *TUNED,
                str(seed),
            )
            for seed in SEEDS
        ],
        "from scratch": [run(out / f"scratch-{seed}", "finetune", data, *MODEL, *TUNED, str(seed)) for seed in SEEDS],
    }
    lines = [
        f"Masked loss on the test set: {masked['test/loss']:.3f}; predicting the training set's colour frequencies: "
        f"{frequency_loss(data):.3f}.",
        "",
        "| fine-tuned, 600 updates | top-1, mean of 3 seeds | deviation | each |",
        "| --- | --- | --- | --- |",
    ]
    for name, runs in rows.items():
        top1 = [100 * metrics["test/top1"] for metrics in runs]
        each = ", ".join(f"{value:.1f}" for value in top1)
        lines.append(f"| {name} | {statistics.mean(top1):.1f} % | {statistics.stdev(top1):.1f} | {each} |")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def run(folder: Path, *arguments: str) -> dict[str, float]:
    """Run one command into `folder` unless it was, and return the last value of each metric."""
    command = [sys.executable, "-m", "vitlab", *arguments, "--out", str(folder)]
    if (folder / "config.json").exists():
        command.append("--resume")
    if not (folder / "report" / "index.html").exists():
        subprocess.run(command, check=True)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {event["name"]: event["value"] for event in events}


def frequency_loss(data: str) -> float:
    """Return the mean loss on the test patches of a guess that knows only how often each colour is among the training patches."""
    opened = open_data(data)
    assert opened.train is not None
    counts = np.bincount(targets(opened.train), minlength=COLOURS)
    frequency = (counts + 1) / (counts.sum() + COLOURS)  # one more of each: a colour may be new
    return float(-np.log(frequency[targets(opened.evals["test"])]).mean())


def targets(source: Source) -> np.ndarray:
    """Return the mean colour of every patch of every image."""
    patch, found = Size(PATCH, PATCH), []
    for index in range(len(source)):
        image = torch.from_numpy(pixels_of(source.read(index)).transpose(2, 0, 1).copy())[None]
        found.append(colours(to_patches(image, patch)[0], patch, 1)[:, 0].numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
