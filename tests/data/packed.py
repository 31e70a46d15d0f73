"""Small data sets to pack, and what is compared of packs."""

import atexit
import io
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from vitlab.data.pack import pack
from vitlab.data.shards import Shards

SMALL = 8_000
"""Bytes of a shard, for several from few images."""


def draw(root: Path, count: int = 6, classes: tuple[str, ...] = ("ant", "bee", "cat")) -> Path:
    """Class folders of JPEG and PNG files, no two alike; names with a dot and a line break among them."""
    rng = np.random.default_rng(len(classes))
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (10, 12, 3), np.uint8)
            suffix = ("jpg", "png")[number % 2]
            stem = ("{}", "{}.b", "{}\n")[number % 3].format(number)
            Image.fromarray(pixels).save(root / name / f"{stem}.{suffix}")
    return root


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def packed(tmp_path: Path) -> tuple[Path, Shards]:
    """Return a folder of 18 images and its pack of several shards, to be spoiled."""
    kept = _packed_once()
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    return tmp_path / "source", Shards(tmp_path / "packed")


@cache
def _packed_once() -> Path:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    kept = Path(folder.name)
    pack(str(draw(kept / "source")), kept / "packed", SMALL)
    return kept


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
