"""Measure every claim, or those of the scripts that are named, and write the table in README.md: `make bench`."""

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import checkpoints
import features
import fewshot
import inference
import input as input_path
import last_block
import loading
import prediction
import serving
import table_reading
import torch
import training
from timing import Row

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: written by table.py -->", "<!-- end of table -->"


SCRIPTS: dict[str, Callable[[], list[Row]]] = {
    "last_block": last_block.measure,
    "inference": lambda: inference.measure(batches=(1, 8)),
    "training": training.own,
    "checkpoints": checkpoints.measure,
    "input": input_path.measure,
    "loading": loading.measure,
    "table_reading": table_reading.measure,
    "features": features.measure,
    "prediction": prediction.measure,
    "fewshot": fewshot.measure,
    "serving": serving.measure,
}
HEADING = ["| what | against | times as fast | lowest–highest round |", "| --- | --- | --- | --- |"]


def main(names: list[str]) -> None:
    """Measure the scripts `names`, all when there are none; rows of the others stay as they are."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    old, after = rest.split(END)
    rows = (
        {claim(line): line for line in old.splitlines() if line.startswith("| ") and line not in HEADING}
        if names
        else {}
    )
    for name in names or SCRIPTS:
        for line in (row.markdown() for row in SCRIPTS[name]()):
            rows[claim(line)] = line
            print(line, flush=True)
    where = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    table = "\n".join([f"Measured on {platform.machine()}, {where}.", "", *HEADING, *rows.values()])
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def claim(line: str) -> str:
    """Return what a row says was measured, and against what."""
    return "|".join(line.split("|")[:3])


if __name__ == "__main__":
    main(sys.argv[1:])
