"""Write docs/plan-large.md, what pre-training the large models would take: `python docs/plan_large.py [--rate L/16=900]`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vitlab.cost.budget import TERA, UTILISATION, device_named
from vitlab.cost.flops import Cost, cost
from vitlab.models.catalog import settings_for
from vitlab.models.vit import ViTSettings
from vitlab.studies.table6 import JFT_CLASSES, JFT_IMAGES

TARGET = Path(__file__).with_name("plan-large.md")
BATCH = 4096
MODELS, GPUS, EPOCHS = ("L/16", "H/14"), (8, 64, 512), (7, 14)
GPU = device_named("H200")
PEAK = TERA * GPU.tflops
NODE_BYTES, LINK_BYTES, GPUS_A_NODE = 450e9, 50e9, 8
"""Bytes a second and direction of a GPU to others of its machine (NVLink 4), and to other machines (400 Gbit/s)."""
MEMORY = 1e9 * GPU.memory_gb
STATE_BYTES = 4 + 4 + 8 + 2
"""Of a parameter: weight and gradient in float32, the two moments of Adam, the copy in bfloat16 that autocast keeps."""
TOKEN_BYTES = 34
"""What a block keeps for its backward pass, of a token and a unit of the width, in 16 bits without the attention matrix."""
PIECE = 64

HEAD = """# What it would take

Written by `python docs/plan_large.py`; do not edit. **This is a plan, not a measurement:** nothing here was run on such machines.

The paper's pre-training on JFT-300M ({images:,} images, batch {batch}) for 7 and 14 epochs, on NVIDIA H200s, 8 to a machine.

| number | value | where it is from |
| --- | --- | --- |
| compute of an image | 3 · 2 · MACs | `vitlab.cost`, checked against the paper's table 6 in [cost.md](cost.md) |
| peak rate of a GPU | {peak:.0f} TFLOP/s bf16 | {source} |
| {rated} |
| bytes of a parameter | {state} | float32 weight, gradient and two moments, autocast's copy in bfloat16 |
| activations | {token} bytes a token, block and unit of width | Korthikanti et al. 2022 without attention matrices: upper bound |
| memory of a GPU | {memory:.0f} GB | data sheet |
| in a machine | {node:.0f} GB/s a direction | NVLink 4, data sheet: half of 900 |
| between machines | {link:.0f} GB/s a GPU and direction | 400 Gbit/s a GPU, as clusters of this kind have |

## Time

| model | images/s a GPU | GPUs | pieces of {piece} a GPU and step | images/s | {epochs_head} |
| --- | ---: | ---: | ---: | ---: | {rule} |
"""
MIDDLE = """
A step takes as long as it computes, or as its gradients need to come together where that is longer (data-parallel, see below): at
512 GPUs the network decides. Evaluation and images that come too late are not in it. At 512 GPUs a batch of 4096 leaves 8 images
for each, which a GPU computes less well than {piece}: a larger batch, or fewer GPUs, use the machines better.

## Memory of a GPU

Weights, gradients and moments whole on each (`parallel=data`), or in parts (`parallel=sharded`), and the activations of a piece.

| model | parameters | GPUs | images a piece | activations | in all, data | in all, sharded |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""
COMMUNICATION = """
Both models fit one H200 whole: data-parallel is the mode to use, and sharding only buys room for larger pieces.

## Communication of a step

Data-parallel brings the gradients together once a step, whatever the number of pieces: 2 (n - 1) / n · 4 bytes a parameter. FSDP2
gathers the weights (float32, as they are kept) forward and backward for every piece, and scatters the gradients once a step:
(n - 1) / n · 4 bytes · (2 · pieces + 1). The time is that over the slowest link; the share is what it is of the step's computing
time if nothing overlapped. Both modes overlap most of it.

| model | GPUs | GB a GPU, data | seconds | share | GB a GPU, sharded | seconds | share |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
FOOT = """
What to measure first, on one machine: the images a second of a step (`benchmarks/`), then again with 8 and with 16 GPUs. Put the
rate in: `python docs/plan_large.py --rate L/16=900 --rate H/14=330`.
"""


class Model(NamedTuple):
    """A model of the plan: its name, settings, cost of one epoch, and images a second of one GPU."""

    name: str
    settings: ViTSettings
    cost: Cost
    rate: float

    def step_seconds(self, gpus: int) -> float:
        """Return how long a step computes, or brings its gradients together where that takes longer."""
        return max(BATCH / gpus / self.rate, self.gradient_seconds(gpus))

    def gradient_seconds(self, gpus: int) -> float:
        """Return how long the gradients of so many GPUs take to come together."""
        return 2 * self.part(gpus) / link(gpus)

    def part(self, gpus: int) -> float:
        """Return the bytes that a GPU gets when all tensors are gathered, or sends when they are scattered."""
        return 4 * self.cost.parameters * (gpus - 1) / gpus

    def days(self, gpus: int, epochs: int) -> float:
        """Return how many days the steps take."""
        return JFT_IMAGES * epochs / BATCH * self.step_seconds(gpus) / 86_400

    def activations(self, images: int) -> float:
        """Return the bytes that the forward pass keeps of a piece."""
        return images * _tokens(self.settings) * self.settings.width * self.settings.depth * TOKEN_BYTES


def _tokens(settings: ViTSettings) -> int:
    height, width = settings.image_size
    patch = settings.stem.patch_size  # pyright: ignore[reportAttributeAccessIssue]  (these models have patches)
    return height // patch[0] * (width // patch[1]) + 1


def planned(name: str, rates: Mapping[str, float]) -> Model:
    """Return the model `name` with the rate that was measured, else the one that `UTILISATION` gives."""
    settings = settings_for(name, num_classes=JFT_CLASSES)
    assert isinstance(settings, ViTSettings)
    settings = settings.model_copy(update={"representation_dim": settings.width})
    counted = cost(settings, train_images=JFT_IMAGES, epochs=1)
    return Model(name, settings, counted, rates.get(name) or UTILISATION * PEAK / (6 * counted.macs))


def link(gpus: int) -> float:
    """Return the bytes a second of the slowest link among so many GPUs."""
    return NODE_BYTES if gpus <= GPUS_A_NODE else LINK_BYTES


def pieces(gpus: int) -> tuple[int, int]:
    """Return how many pieces a GPU computes in a step, and of how many images."""
    each = BATCH // gpus
    return max(1, each // PIECE), min(each, PIECE)


def page(rates: Mapping[str, float]) -> str:
    """Return the text of the plan."""
    models = [planned(name, rates) for name in MODELS]
    known = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    rated = (
        f"images a second of a GPU | {known} | measured, given by --rate"
        if known
        else (
            f"share of it in a step | {UTILISATION:.0%} | **assumed**, as by `vitlab cost --budget`; the paper's own runs used "
            "32 % (H/14) and 43 % (L/16) of their TPUs, published training of ViT-g/14 on H100s 29 %"
        )
    )
    head = HEAD.format(
        images=JFT_IMAGES, batch=BATCH, peak=PEAK / TERA, source=GPU.source, rated=rated,
        state=STATE_BYTES, token=TOKEN_BYTES, piece=PIECE,
        memory=MEMORY / 1e9, node=NODE_BYTES / 1e9, link=LINK_BYTES / 1e9,
        epochs_head=" | ".join(f"{epochs} epochs: exaFLOPs, days" for epochs in EPOCHS), rule=" | ".join("---:" for _ in EPOCHS),
    )  # fmt: skip
    rows = [(model, gpus) for model in models for gpus in GPUS]
    tables = (head, _time), (MIDDLE.format(piece=PIECE), _memory), (COMMUNICATION, _communication)
    return "".join(text + "".join(f"| {line(*row)} |\n" for row in rows) for text, line in tables) + FOOT


def _time(model: Model, gpus: int) -> str:
    count, size = pieces(gpus)
    ends = [f"{epochs * (model.cost.exaflops or 0):,.0f}, {model.days(gpus, epochs):,.1f}" for epochs in EPOCHS]
    return " | ".join(
        [
            model.name,
            f"{model.rate:,.0f}",
            str(gpus),
            f"{count} of {size}",
            f"{BATCH / model.step_seconds(gpus):,.0f}",
            *ends,
        ]
    )


def _memory(model: Model, gpus: int) -> str:
    _, size = pieces(gpus)
    kept, state = model.activations(size), STATE_BYTES * model.cost.parameters
    totals = [f"{(kept + part) / 1e9:,.1f} GB" for part in (state, state / gpus)]
    return " | ".join(
        [model.name, f"{model.cost.parameters:,}", str(gpus), str(size), f"{kept / 1e9:,.1f} GB", *totals]
    )


def _communication(model: Model, gpus: int) -> str:
    count, _ = pieces(gpus)
    part = model.part(gpus)
    step = BATCH / gpus / model.rate
    cells = [
        f"{moved / 1e9:,.1f} | {moved / link(gpus):,.3f} | {moved / link(gpus) / step:.0%}"
        for moved in (2 * part, (2 * count + 1) * part)
    ]
    return " | ".join([model.name, str(gpus), *cells])


def main() -> None:
    """Write the page, from the rates that are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", action="append", default=[], help="measured images a second of one GPU: L/16=900")
    pairs = [text.split("=") for text in parser.parse_args().rate]
    TARGET.write_text(page({name: float(rate) for name, rate in pairs}))


if __name__ == "__main__":
    main()
