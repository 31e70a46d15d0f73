"""What the training input path costs: against the decoder alone, against Pillow's own way, and beside a training step."""

import io
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from peers_input import AUGMENT, SPEC, enlarged, generated, ours, raw
from PIL import Image
from timing import Row, compare

from vitlab.data import native
from vitlab.data.batch import Batch, collate
from vitlab.data.folder import Folder
from vitlab.data.loader import TrainBatches, load
from vitlab.data.transforms import inception_box
from vitlab.models.catalog import build_named
from vitlab.studies.recipe import transfer
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

PHOTOS, LARGE, STEPS, BATCH = 40, 4, 3, 16


def by_pillow(files: list[bytes]) -> None:
    """The same with Pillow alone: decode the picture, resize the box, flip, stack."""
    views: list[np.ndarray] = []
    for index, data in enumerate(files):
        image, rng = Image.open(io.BytesIO(data)).convert("RGB"), np.random.default_rng((0, 1, index))
        box = inception_box(image.height, image.width, (0.05, 1.0), (3 / 4, 4 / 3), rng)
        view = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR, box=box))
        views.append(view[:, ::-1] if rng.random() < 0.5 else view)
    collate(views, [0] * len(views), [""] * len(views), len(views))


def measure() -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Row] = []
    small = generated(PHOTOS)
    for name, files in (("500×375 photos", small), ("12-megapixel photos", [enlarged(data) for data in small[:LARGE]])):
        claim = f"decode, inception crop, flip, batch: {name}"
        rows.append(compare(claim, "the same by Pillow alone", lambda f=files: ours(f), lambda f=files: by_pillow(f)))
        if native.available():
            limit = "decoding the same parts at full scale"
            rows.append(compare(claim, limit, lambda f=files: ours(f), lambda f=files: raw(f)))
    torch.set_num_threads(threads)
    return [*rows, _beside_a_step(small)]


def _beside_a_step(photos: list[bytes]) -> Row:
    """Training steps of S/16 on photos from files against the same steps on batches in memory: 1 is no wait at all."""
    with tempfile.TemporaryDirectory() as folder:
        for index, data in enumerate(photos):
            path = Path(folder) / str(index % 2) / f"{index}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        source = Folder(folder)
        batches = TrainBatches(source, source.labels, SPEC, AUGMENT, BATCH, 0)
        model = build_named("S/16", num_classes=2, image_size=224)
        settings = transfer(1000).model_copy(update={"batch_size": BATCH})
        state = TrainState.start(model, settings)
        kept = list(load(batches, range(STEPS)))

        def train(given: Iterable[Batch]) -> None:
            for batch in given:
                train_step(state, batch.pieces(settings.pieces), settings).read(state)

        claim = f"{STEPS} training steps of S/16 at 224, batch {BATCH}, from JPEG files, 1 worker"
        limit = "the same on batches in memory (the limit is 1)"
        coming = load(batches, range(1000), 1)  # begun once, as in a run
        return compare(claim, limit, lambda: train(islice(coming, STEPS)), lambda: train(kept), rounds=7)
