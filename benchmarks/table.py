"""Measure every claim and write the table in README.md: `make bench`."""

import platform
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

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: written by table.py -->", "<!-- end of table -->"


def main() -> None:
    scripts = (
        last_block.measure,
        lambda: inference.measure(batches=(1, 8)),
        training.own,
        checkpoints.measure,
        input_path.measure,
        loading.measure,
        table_reading.measure,
        features.measure,
        prediction.measure,
        fewshot.measure,
        serving.measure,
    )
    rows = [row for measure in scripts for row in measure()]
    where = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    table = "\n".join(
        [
            f"Measured on {platform.machine()}, {where}.",
            "",
            "| what | against | times as fast | lowest–highest round |",
            "| --- | --- | --- | --- |",
            *(row.markdown() for row in rows),
        ]
    )
    text = README.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    print(table)


if __name__ == "__main__":
    main()
