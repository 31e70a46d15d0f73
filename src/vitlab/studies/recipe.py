"""RunSettings: everything that makes a run, and the recipes that fill it in."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from vitlab.config import Settings
from vitlab.data.open import AnySource
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Source
from vitlab.data.transforms import Augment, InceptionCrop, ResizeCrop
from vitlab.models.classifier import AnySettings, ModelSettings
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Softmax
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Cosine, Linear, Staircase

MEMORY_BYTES = 2 << 30
"""What the activations of one micro-batch may take; a fixed number, because the split decides the last bits of a run."""


class Origin(Settings):
    """The weights that a run starts from; a resumed run refuses others."""

    path: str
    sha256: str


class InProgram(Settings):
    """A source that exists only in the Python program that started the run."""

    type: Literal["InProgram"] = "InProgram"
    description: str
    examples: int


class RunSettings(Settings):
    """A run, reproducible from this alone: model, first weights, data, preparation, training.

    `workers`, `device`, `tensorboard` and `wandb` (a project) may change when a run is resumed; everything else may not.
    """

    recipe: str
    model: ModelSettings
    weights: Origin | None = None
    train_data: Annotated[AnySource | InProgram, Field(discriminator="type")]
    evals: Mapping[str, Annotated[AnySource | InProgram, Field(discriminator="type")]] = Field(default_factory=dict)
    image_spec: ImageSpec
    augment: Augment = Augment()
    train: TrainSettings
    on_bad_image: Literal["fail", "skip"] = "fail"
    workers: NonNegativeInt = 0
    device: str = "cpu"
    tensorboard: bool = False
    wandb: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A named way to train: its settings for a number of steps, and what it does to images."""

    name: str
    training: Callable[[int], TrainSettings]
    steps: int
    augment: Augment


def transfer(steps: int = 500) -> TrainSettings:
    """Return the paper's fine-tuning: SGD with momentum, cosine, no weight decay, batch 512 (table 4, appendix B.1.1)."""
    return TrainSettings(
        steps=steps,
        batch_size=512,
        lr=0.003,
        optimizer=SGD(momentum=0.9),
        schedule=Cosine(warmup_steps=_warmup(steps, 500)),
        clip_norm=1.0,
        objective=Softmax(),
    )


def scratch(steps: int = 1000) -> TrainSettings:
    """Return our setting for a small model on a small data set without weights; not from the paper, which needs millions."""
    return TrainSettings(
        steps=steps,
        batch_size=64,
        lr=1e-3,
        optimizer=Adam(weight_decay=0.1),
        schedule=Cosine(warmup_steps=_warmup(steps, 500)),
        clip_norm=1.0,
        objective=Softmax(label_smoothing=0.1),
    )


def pretraining(steps: int = 2000) -> TrainSettings:
    """Return the shape of the paper's pre-training (table 3: Adam, decay 0.1, linear to 1e-5) at a laptop's batch of 256.

    The paper's batch is 4096, its warm-up 10,000 steps and its rate 8e-4 for ViT-B; here the warm-up is a tenth of the run where
    that is shorter. Its sigmoid loss is for images with several labels: `--set train.objective=Sigmoid --set model.head_bias=-10`.
    """
    return TrainSettings(
        steps=steps,
        batch_size=256,
        lr=1e-3,
        optimizer=Adam(weight_decay=0.1),
        schedule=Linear(warmup_steps=_warmup(steps, 10_000), end=1e-5),
        clip_norm=1.0,
        objective=Softmax(),
    )


def masking(steps: int = 2000) -> TrainSettings:
    """Return the paper's masked patch prediction (appendix B.1.2: Adam, rate 2e-4, warm-up 10,000, cosine) at a batch of 256.

    The paper's batch is 4096. Weight decay is that of its supervised pre-training: the paper does not say.
    """
    return TrainSettings(
        steps=steps,
        batch_size=256,
        lr=2e-4,
        optimizer=Adam(weight_decay=0.1),
        schedule=Cosine(warmup_steps=_warmup(steps, 10_000)),
        clip_norm=1.0,
        objective=MaskedPatches(),
    )


def hyperrule(images: int, area: int) -> "Recipe":
    """Return BiT-HyperRule for a training set of so many `images` of so many pixels each (Kolesnikov et al. 2020, section 3.3).

    SGD at 0.003, batch 512; 500 updates below 20,000 images, 10,000 below 500,000, else 20,000, the rate divided by ten three
    times; MixUp 0.1 from 20,000 images on; images below 96×96 pixels are cropped to 128 out of 160, others to 384 out of 448
    (the released code: 480 out of 512).
    """
    total, warmup, boundaries = next(rule for least, rule in _HYPERRULE if images >= least)

    def training(steps: int) -> TrainSettings:
        scaled = [round(mark * steps / total) for mark in (warmup, *boundaries)]
        return TrainSettings(
            steps=steps,
            batch_size=512,
            lr=0.003,
            optimizer=SGD(momentum=0.9),
            schedule=Staircase(warmup_steps=scaled[0], boundaries=tuple(scaled[1:])),
            clip_norm=None,
            objective=Softmax(mixup=0.1 if images >= 20_000 else 0.0),
        )

    return Recipe("bit", training, total, Augment(crop=ResizeCrop(fraction=128 / 160 if area < 96 * 96 else 384 / 448)))


_HYPERRULE = (
    (500_000, (20_000, 500, (6_000, 12_000, 18_000))),
    (20_000, (10_000, 500, (3_000, 6_000, 9_000))),
    (0, (500, 100, (200, 300, 400))),
)
"""From so many images on: updates, warm-up, and where the rate is divided by ten (the released code)."""


def hyperrule_size(area: int) -> int:
    """Return the side that BiT-HyperRule trains images of `area` pixels at."""
    return 128 if area < 96 * 96 else 384


SMALL_CROP = InceptionCrop(area=(0.35, 1.0))
"""Gentler than the paper's crops: small images and small data sets lose their object in a twentieth of the area."""

TRANSFER = Recipe("transfer", transfer, 500, Augment(crop=ResizeCrop()))
SCRATCH = Recipe("scratch", scratch, 1000, Augment(crop=SMALL_CROP))
PRETRAIN = Recipe("pretrain", pretraining, 2000, Augment(crop=InceptionCrop()))
PRETRAIN_SMALL = Recipe("pretrain", pretraining, 2000, Augment(crop=SMALL_CROP))
MASKED = Recipe("masked", masking, 2000, Augment(crop=InceptionCrop()))
MASKED_SMALL = Recipe("masked", masking, 2000, Augment(crop=SMALL_CROP))


def steps_for(epochs: float, source: Source, batch_size: int) -> int:
    """Return how many updates show `source` about `epochs` times, at least one."""
    return max(1, math.ceil(epochs * len(source) / batch_size))


def micro_batch_for(model: AnySettings, batch_size: int) -> int | None:
    """Return the largest divisor of `batch_size` whose activations fit `MEMORY_BYTES`, None when the whole batch does."""
    per_image = 4 * model.floats_per_image
    fitting = max(1, MEMORY_BYTES // per_image)
    if fitting >= batch_size:
        return None
    return max(size for size in range(1, fitting + 1) if batch_size % size == 0)


def _warmup(steps: int, full: int) -> int:
    return min(full, steps // 10)
