"""Makes three updates on every rank, in each way that is an argument, and prints what came out on the first.

A program of its own, for it starts processes of its own, and torch.compile cannot read functions that check shapes. An argument
is a JSON object of training settings.
"""

import json
import os
import sys

import numpy as np
import torch
from torch import multiprocessing

from vitlab.data.batch import collate
from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.ranks import joined
from vitlab.train.config import TrainSettings
from vitlab.train.preparation import prepared
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

BATCH, PIECES, STEPS = 8, 4, 3
SHAPE = ViTSettings(
    image_size=(16, 16), stem=Patches(patch_size=(8, 8)), width=16, depth=3, num_heads=2, mlp_dim=32, num_classes=3,
    layer_scale=0.5,
)  # fmt: skip


def updates(ranks, changes):
    """Return loss and gradient norm of every update, and the outputs of the model after them."""
    plain = {"steps": 9, "batch_size": BATCH, "micro_batch_size": BATCH // PIECES, "lr": 0.05}
    settings = TrainSettings(**plain | changes)
    model = build(SHAPE, seed=1, classes=("ant", "bee", "cat"))
    torch.nn.init.normal_(model.head.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    state, figures = TrainState.start(model, settings, ranks=ranks), []
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (BATCH, 16, 16, 3)).astype(np.uint8))
    batch = collate(images, [index % 3 for index in range(BATCH)], [""] * BATCH, BATCH)
    pieces = list(batch.pieces(PIECES))
    with prepared(state.model, settings):
        for _ in range(STEPS):
            result = train_step(state, [pieces[index] for index in ranks.share(PIECES)], settings).read(state)
            figures.append([result.loss, result.grad_norm])
    assert all(parameter.dtype == torch.float32 for parameter in state.parameters())
    with state.evaluated(), torch.inference_mode():
        outputs = model.eval()(torch.ones(2, 3, 16, 16)).float().flatten().tolist()
    return {"figures": figures, "outputs": outputs}


def work(rank, world, port, ways):
    torch.set_num_threads(1)
    compiled = torch.nn.Module.compile
    torch.nn.Module.compile = lambda module: compiled(module, backend="aot_eager")
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined() as ranks:
        found = [updates(ranks, way) for way in ways]
    if ranks.first:
        print(json.dumps(found), flush=True)


def main():
    world, port, *ways = sys.argv[1:]
    arguments = int(world), int(port), [json.loads(way) for way in ways]
    if int(world) == 1:
        work(0, *arguments)
    else:
        multiprocessing.start_processes(work, arguments, nprocs=int(world), start_method="fork")


if __name__ == "__main__":
    main()
