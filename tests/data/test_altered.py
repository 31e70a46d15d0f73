"""Altered files by the hundred thousand: an image or a refusal, and in C no byte is touched that is not ours."""

import faulthandler
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.altering import altered
from tests.data.test_jpeg import FILES
from vitlab.data import native
from vitlab.data.image import open_image
from vitlab.data.jpeg import Jpeg
from vitlab.data.limits import Limits
from vitlab.data.resize import Box, resize
from vitlab.errors import ImageError

ROOT = Path(__file__).parents[2]
SANITIZED = ["-O1", "-g", "-std=gnu11", "-fPIC", "-shared", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
LIMITS = Limits(max_pixels=1 << 20)
"""Few, so that an altered size does not take the time of many files."""


@pytest.mark.slow
def test_an_altered_file_is_an_image_or_refused(odd_images, tmp_path):
    """For VITLAB_FUZZ seconds; as it is installed."""
    counts = run(small(odd_images), tmp_path)
    assert counts["image"] > 100 and counts["refused"] > 100


@pytest.mark.slow
def test_the_c_files_touch_only_what_is_theirs(odd_images, tmp_path):
    """For VITLAB_FUZZ seconds; compiled with the sanitizers of addresses and of undefined behaviour, on JPEG files alone."""
    compiler = shutil.which("gcc")
    runtime = compiler and subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    if not runtime or not Path(runtime.stdout.strip()).is_absolute():
        pytest.skip("no gcc with its sanitizers")
    library = tmp_path / "libvitlab.so"
    sources = sorted(map(str, Path(native.__file__).parent.glob("*.c")))
    subprocess.run([compiler, *SANITIZED, *sources, "-o", str(library), "-lm", "-ldl"], check=True)
    files = [data for data in small(odd_images) if data.startswith(b"\xff\xd8\xff")]
    # Python keeps memory to its end, and what it runs on was not made for a sanitizer that looks at all of it
    how = {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    counts = run(files, tmp_path, library, how)
    assert counts["part"] > 100 and counts["refused"] > 100


def small(files):
    """Return those of `files` that take no time, and JPEG files in each way that they are stored."""
    return [data for data in files if 0 < len(data) < 100_000] + list(FILES.values())


def run(files, folder, library=None, environment=None):
    """Return what a process of its own counts while it alters and decodes `files`."""
    (folder / "files").mkdir()
    for number, data in enumerate(files):
        (folder / "files" / f"{number}").write_bytes(data)
    seconds = os.environ.get("VITLAB_FUZZ", "30")
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.test_altered", folder / "files", seconds, *([library] if library else [])],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    print(done.stdout)
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def main(folder, seconds, library=None):
    """Alter and decode the files in `folder` for so long; what is neither an image nor a refusal ends the process."""
    faulthandler.enable()
    if library:
        native._LIBRARY = Path(library)
        assert native.available(), "the sanitized library cannot be loaded"
    files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    counts, until, seed = Counter(), time.monotonic() + float(seconds), 0
    while time.monotonic() < until:
        seed += 1
        rng = np.random.default_rng(seed)
        data = altered(files[rng.integers(len(files))], rng)
        try:
            counts[look(data, rng)] += 1
        except ImageError:
            counts["refused"] += 1
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)
            raise
    print(json.dumps(counts))


def look(data, rng):
    """Decode a file, of a JPEG any part at any scale, and resize any box of it; return which of these it was."""
    picture = open_image(data, "altered", LIMITS)
    rows, columns = picture.shape[:2]
    kind = "image"
    if isinstance(picture, Jpeg):
        reduce = int(rng.choice((1, 2, 4, 8)))
        high, wide = picture.reduced(reduce)
        (top, bottom), (left, right) = edges(high, rng), edges(wide, rng)
        assert picture.part((left, top, right, bottom), reduce).shape == (bottom - top, right - left, 3)
        kind = "part"
    (top, bottom), (left, right) = edges(rows, rng), edges(columns, rng)
    cut = rng.random(4) * 0.49  # of a pixel
    box = Box(left + cut[0], top + cut[1], right - cut[2], bottom - cut[3])
    height, width = (int(side) for side in rng.integers(1, 64, 2))
    how = {"interpolation": ("bilinear", "bicubic")[rng.integers(2)], "sooner": bool(rng.integers(2))}
    resized = resize(picture, height, width, box=box, mirrored=bool(rng.integers(2)), **how)
    assert resized.shape == (height, width, 3) and resized.dtype == np.uint8
    return kind


def edges(size, rng):
    """Return where a part of a side of `size` begins and ends."""
    start = int(rng.integers(size))
    return start, int(rng.integers(start + 1, size + 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
