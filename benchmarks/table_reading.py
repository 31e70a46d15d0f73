"""What a shuffled read of parquet files costs, over decoding the row group that holds the image, as pyarrow does."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import Row, compare

from vitlab.data import parquet
from vitlab.data.table import Table

IMAGES, BYTES, GROUP, READS = 2000, 50_000, 1000, 20
HUB = {
    "compression": "none",
    "use_dictionary": False,
    "write_batch_size": 1,
}  # pages of a mebibyte, as `datasets` writes them


def measure() -> list[Row]:
    rng = np.random.default_rng(0)
    images = pa.array([rng.bytes(BYTES) for _ in range(IMAGES)])
    rows = pa.table({"image": images, "label": [0, 1] * (IMAGES // 2)})
    order = rng.integers(0, IMAGES, READS).tolist()
    parquet.CACHE_BYTES = 0  # every read is the first
    with tempfile.TemporaryDirectory() as folder:
        return [
            _compare(Path(folder) / "hub.parquet", rows, order, "as the hub writes it", HUB),
            _compare(Path(folder) / "plain.parquet", rows, order, "as pyarrow writes it", {}),
        ]


def _compare(path: Path, rows: pa.Table, order: list[int], how: str, options: dict[str, object]) -> Row:
    pq.write_table(rows, path, row_group_size=GROUP, **options)
    table = Table(path)

    def ours() -> None:
        for index in order:
            table.read(index)

    def groups() -> None:
        with pq.ParquetFile(path, memory_map=True) as reader:
            for index in order:
                group = reader.read_row_group(index // GROUP, columns=["image"], use_threads=False)
                group.column(0)[index % GROUP].as_py()

    ours()
    return compare(
        f"a random image of 50 KB from parquet, {how}", "pyarrow decoding its row group of 50 MB", ours, groups, 3
    )
