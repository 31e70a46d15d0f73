"""What a checkpoint costs a run: the steps around it, against the same steps without one, and with one that they wait for."""

import tempfile
import time
from pathlib import Path

import numpy as np
from timing import Row, compare

from vitlab.data.batch import collate
from vitlab.models.catalog import build_named
from vitlab.studies.recipe import find_recipe
from vitlab.train import checkpoint
from vitlab.train.saver import Saver
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

MODEL, SIZE, BATCH, STEPS = "Ti/16", 64, 16, 6


def measure(rounds: int = 3) -> list[Row]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8) for _ in range(BATCH)]
    batch = collate(images, [index % 10 for index in range(BATCH)], ["image"] * BATCH, BATCH)
    # at a higher rate it learns its one batch by heart, and gradients so small are computed ten times as slowly
    settings = find_recipe("pretrain").training(1000).model_copy(update={"batch_size": BATCH, "lr": 1e-9})
    state = TrainState.start(build_named(MODEL, num_classes=10, image_size=SIZE), settings)
    with tempfile.TemporaryDirectory() as folder:
        saver, stalls = Saver(Path(folder)), list[float]()

        def steps(save: str) -> None:
            for step in range(STEPS):
                train_step(state, batch.pieces(1), settings).read(state)
                start = time.perf_counter()
                if step == 0 and save == "meanwhile":
                    saver.save(state, 0)
                elif step == 0 and save == "first":
                    checkpoint.write(Path(folder), state, 0)
                stalls.append((time.perf_counter() - start) if step == 0 and save == "meanwhile" else 0.0)
            saver.wait()

        steps("meanwhile")
        steps("meanwhile")  # the second has all that an optimizer keeps
        size = sum(file.stat().st_size for file in next(Path(folder).glob("step-*")).iterdir()) / 1e6
        claim = (
            f"{STEPS} training steps of {MODEL} at {SIZE}, batch {BATCH}, with a checkpoint ({size:.0f} MB) among them"
        )
        others = {"the same without one (the limit is 1)": "none", "writing it before going on": "first"}
        rows = [
            compare(claim, against, lambda: steps("meanwhile"), lambda other=other: steps(other), rounds)
            for against, other in others.items()
        ]
        seconds = sorted(stall for stall in stalls if stall)
        print(f"checkpoint of {size:.0f} MB: training waits {1000 * seconds[len(seconds) // 2]:.0f} ms for the copy")
    return rows


if __name__ == "__main__":
    for row in measure():
        print(row.markdown())
