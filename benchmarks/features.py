"""Features of a source against the bare forward pass on batches that are ready in memory: 1 is no wait at all."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from peers_input import generated
from timing import Row, compare
from torch import Tensor

from vitlab.data.folder import Folder
from vitlab.data.loader import EvalBatches, load
from vitlab.data.source import Example, Source
from vitlab.evals.features import extract
from vitlab.evals.kept import kept_features
from vitlab.models.catalog import build_named
from vitlab.models.classifier import Classifier

BATCH = 64
LIMIT = "the forward passes alone (the limit is 1)"


class Pixels:
    """Images in memory, as a data set that is decoded already."""

    classes = ("a", "b")

    def __init__(self, count: int, side: int) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        self.labels = np.arange(count) % 2

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Example:
        return Example(self.images[index], int(self.labels[index]), str(index))

    def __str__(self) -> str:
        return "pixels"


@torch.inference_mode()
def bare(model: Classifier, batches: list[Tensor]) -> None:
    for images in batches:
        model.features(images)


def measure(photos: int = 256, small: int = 10_000) -> list[Row]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for index, data in enumerate(generated(32)):
            for copy in range(photos // 32):
                path = folder / "photos" / str(index % 2) / f"{index}-{copy}.jpg"
                path.parent.mkdir(exist_ok=True, parents=True)
                path.write_bytes(data)
        cases: list[tuple[str, str, int, Source, int]] = [
            ("Mini/4 at 32, pixels in memory", "Mini/4", 32, Pixels(small, 32), 0),
            ("Ti/16 at 224, pixels in memory", "Ti/16", 224, Pixels(photos, 224), 0),
            ("Ti/16 at 224, JPEG files, 1 worker", "Ti/16", 224, Folder(folder / "photos"), 1),
        ]
        rows: list[Row] = []
        for claim, name, size, source, workers in cases:
            model = build_named(name, num_classes=2, image_size=size).eval()
            spec = model.image_spec.model_copy(update={"height": size, "width": size})
            model.image_spec = spec
            batches = EvalBatches(source, spec, BATCH)
            ready = [spec.normalise(batch.images) for batch in load(batches, range(len(batches)))]
            once = lambda m=model, s=source, w=workers: extract(m, s, BATCH, w)  # noqa: E731
            rows.append(compare(f"features, {claim}", LIMIT, once, lambda m=model, r=ready: bare(m, r), rounds=5))
        begun = iter(range(10**6))  # a new folder each time: nothing is found
        keep = lambda: kept_features(model, source, BATCH, workers, folder=folder / f"kept-{next(begun)}")  # noqa: E731
        rows.append(
            compare(f"features kept for the next time, {claim}", LIMIT, keep, lambda: bare(model, ready), rounds=5)
        )
    return rows


if __name__ == "__main__":
    for row in measure():
        print(row.markdown())
