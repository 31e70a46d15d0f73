"""What it costs to open packed data and to read from it, at 10⁴, 10⁶ and 10⁹ examples.

The images are few and the rest of the index is a sparse file: what grows with the number of examples is the index, and the range
of the order in which they are read. Each count is measured in processes of its own, whose imports are not counted.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vitlab.data.index import INDEX, LABEL, MANIFEST, PLACE
from vitlab.data.pack import pack
from vitlab.data.shards import Shards

COUNTS = (10**4, 10**6, 10**9)
IMAGES = 200
READS = 2_000
MEASURE = """
import json, sys, time
import numpy as np, pydantic
from vitlab.data.shards import Shards
from vitlab.data.order import examples_at

def memory():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return np.array([int(status[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")])

before, start = memory(), time.perf_counter()
shards = Shards(sys.argv[1])
count = len(shards)
shards.read(0)
opened, after_opening = time.perf_counter() - start, memory() - before
start = time.perf_counter()
for step in range(READS):
    (place,) = examples_at(np.array([step]), count, seed=0)
    int(shards.labels[place]), shards.listing.places[place]
ordered = (time.perf_counter() - start) / READS
start = time.perf_counter()
for step in range(READS):
    shards.read(step % IMAGES)
read = (time.perf_counter() - start) / READS
after_reading = memory() - before
print(json.dumps([opened * 1e3, after_opening.sum(), ordered * 1e6, read * 1e6, *after_reading]))
"""


def make(folder: Path) -> Path:
    """Pack some images of about 40 kB."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / "source" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize((500, 375))
        noise.save(path, quality=90)
    pack(str(folder / "source"), folder / "packed")
    return folder / "packed"


def stretch(packed: Path, count: int) -> None:
    """Make a pack say that its images are the first of `count` examples, of which nothing else is there."""
    manifest = json.loads((packed / MANIFEST).read_text())
    places, labels = np.array(Shards(packed).listing.places[:IMAGES]), np.array(Shards(packed).labels[:IMAGES])
    (packed / INDEX).unlink()
    with (packed / INDEX).open("wb") as file:
        file.write(places.tobytes())
        file.seek(count * PLACE.itemsize)
        file.write(labels.tobytes())
        file.truncate(count * (PLACE.itemsize + LABEL.itemsize))
    (packed / MANIFEST).write_text(json.dumps(manifest | {"examples": count}))


def measure(packed: Path) -> list[float]:
    code = MEASURE.replace("READS", str(READS)).replace("IMAGES", str(IMAGES))
    done = subprocess.run([sys.executable, "-c", code, str(packed)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    columns = (
        "examples",
        "open and read one, ms",
        "memory for it, MB",
        "order, place and label, µs",
        "read an example, µs",
    )
    columns += (f"memory after {READS:,} of each, MB", "index mapped by then, MB")
    print("| " + " | ".join(columns) + " |")
    print("| --- " * len(columns) + "|")
    with tempfile.TemporaryDirectory() as folder:
        packed = make(Path(folder))
        for count in COUNTS:
            stretch(packed, count)
            opened, memory, ordered, read, private, mapped = np.median([measure(packed) for _ in range(5)], axis=0)
            print(
                f"| {count:,} | {opened:.1f} | {memory:.1f} | {ordered:.0f} | {read:.0f} | {private:.1f} | {mapped:.1f} |"
            )


if __name__ == "__main__":
    main()
