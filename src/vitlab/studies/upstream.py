"""Upstream: what the miniature studies share: fractals to pre-train on, and digits and unseen fractals to go to.

Pre-training for one study is the same piece of work as for another, so it is done once for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vitlab.config import to_json
from vitlab.data.digits import Digits
from vitlab.data.fractals import Fractals
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Part
from vitlab.data.transforms import Augment, InceptionCrop
from vitlab.evals.fewshot import fewshot
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size, as_size
from vitlab.nn.patches import Patches
from vitlab.nn.stem import ResNetStem
from vitlab.studies.recipe import RunSettings
from vitlab.studies.work import Measurement, Result, Training, Untrained
from vitlab.train.config import TrainSettings
from vitlab.train.objective import Softmax
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Cosine, Linear

PIXELS = 16
STEPS, BATCH, RATE = 600, 64, 3e-3
"""Of pre-training. Of rates from 1e-3 to 5e-3 and batches of 32 to 128 these gave the best features for their time."""
SHORT, SHORT_BATCH, SHORT_RATE = 100, 64, 0.1
"""Of fine-tuning."""


def fractals(classes: int, images: int, **changes: Any) -> Fractals:
    """Return upright fractals of 8 pixels, as digits are; a larger set holds the smaller ones."""
    return Fractals(num_classes=classes, images_per_class=images, image_size=8, views=1, **changes)


SETS: Mapping[str, Fractals] = {"small": fractals(20, 50), "medium": fractals(60, 50), "large": fractals(200, 50)}
"""In the place of ImageNet, ImageNet-21k and JFT-300M: each a few times the one before, in images and in classes."""


@dataclass(frozen=True)
class Task:
    """A data set to go to after pre-training, far smaller than what was pre-trained on."""

    train: Digits | Fractals
    test: Digits | Fractals


def _task(whole: Digits | Fractals, tested: float) -> Task:
    sides = (whole.model_copy(update={"part": Part(side=side, fraction=tested)}) for side in ("train", "test"))
    return Task(*sides)


TASKS: Mapping[str, Task] = {
    "digits": _task(Digits(), 0.8),
    "new fractals": _task(fractals(20, 100, seed=1), 0.8),
}
"""Where trained models go: handwritten digits, and classes of fractals that none of `SETS` has."""


def vit(num_classes: int | None = len(SETS["large"].classes), *, patch: int = 4, **changes: Any) -> ViTSettings:
    """Return the usual network of the studies, a twelfth as wide as ViT-B and a third as deep, with `changes`."""
    usual: dict[str, Any] = {
        "image_size": as_size(PIXELS),
        "stem": Patches(patch_size=Size(patch, patch)),
        "width": 64,
        "depth": 4,
        "num_heads": 4,
        "mlp_dim": 4 * changes.get("width", 64),
        "num_classes": num_classes,
    }
    return ViTSettings(**{**usual, **changes})


def resnet(root_width: int, depths: tuple[int, ...]) -> ResNetSettings:
    """Return a small BiT; a stage halves the image, and there are 16 pixels to begin with."""
    return ResNetSettings(
        image_size=as_size(PIXELS), root_width=root_width, depths=depths, num_classes=len(SETS["large"].classes)
    )


def _hybrid(width: int) -> ViTSettings:
    return vit(width=width, num_heads=width // 16, stem=ResNetStem(depths=(1,), root_width=32))


NETWORKS: Mapping[str, AnySettings] = {
    "Nano/8": vit(patch=8, width=32, num_heads=2),
    "Nano/4": vit(width=32, num_heads=2),
    "Micro/8": vit(patch=8),
    "Micro/4": vit(),
    "R8x0.5": resnet(32, (1, 1)),
    "R14x0.5": resnet(32, (2, 2)),
    "R8x1": resnet(64, (1, 1)),
    "R5+Nano/4": _hybrid(32),
    "R5+Micro/4": _hybrid(64),
}
"""The scaling set: ViTs of two sizes and patch sizes, ResNets by layers and width, hybrids whose stem is one stage of a ResNet."""
USUAL = "Micro/4"


def pretraining(
    name: str,
    model: AnySettings,
    data: Fractals = SETS["large"],
    *,
    seed: int = 0,
    steps: int = STEPS,
    **changes: Any,
) -> Training:
    """Return the pre-training of `model` on `data`: Adam with weight decay and a linear schedule, as table 3, with `changes`.

    Its head is made to fit the classes. The name of the piece is `name` and the seed.
    """
    model = model.model_copy(update={"num_classes": len(data.classes)})
    usual: dict[str, Any] = {
        "steps": steps,
        "batch_size": BATCH,
        "lr": RATE,
        "optimizer": Adam(weight_decay=0.1),
        "schedule": Linear(warmup_steps=steps // 10, end=1e-5),
        "seed": seed,
        "checkpoint_every": max(1, steps // 4),
    }
    settings = RunSettings(
        recipe="study-pretraining",
        model=model,
        train_data=data,
        image_spec=_spec(model),
        augment=Augment(crop=InceptionCrop(area=(0.5, 1.0)), flip=False),
        train=TrainSettings(**{**usual, **changes}),
    )
    return Training(f"{slug(name)}-seed{seed}", settings)


def pretrained(network: str = USUAL, data: str = "large", seed: int = 0) -> Training:
    """Return the pre-training of one of `NETWORKS` on one of `SETS`, which studies have in common."""
    return pretraining(f"{network} on {data}", NETWORKS[network], SETS[data], seed=seed)


def finetuning(
    start: Training | None, model: AnySettings, task: str, *, seed: int = 0, steps: int = SHORT, **changes: Any
) -> Training:
    """Return the fine-tuning of `model`, from the weights of `start` or fresh ones, on one of `TASKS`: SGD and cosine, as table 4.

    The result has `test/top1`.
    """
    given = TASKS[task]
    model = model.model_copy(update={"num_classes": len(given.train.classes)})
    usual: dict[str, Any] = {
        "steps": steps,
        "batch_size": SHORT_BATCH,
        "lr": SHORT_RATE,
        "optimizer": SGD(),
        "schedule": Cosine(warmup_steps=steps // 10),
        "objective": Softmax(),
        "seed": seed,
    }
    settings = RunSettings(
        recipe="study-finetuning",
        model=model,
        train_data=given.train,
        evals={"test": given.test},
        image_spec=_spec(model),
        augment=Augment(crop=InceptionCrop(area=(0.6, 1.0)), flip=False),
        train=TrainSettings(**{**usual, **changes}),
    )
    origin = "scratch" if start is None else start.name
    return Training(f"{slug(task)}-from-{origin}-seed{seed}", settings, start)


def heads(
    model: Training | Untrained, shots: int = 10, *, task: str = "digits", draws: Sequence[int] = range(3)
) -> Measurement:
    """Return the measurement of linear heads on `shots` images a class: `top1` is the mean over draws of the images."""
    given = TASKS[task]
    inputs: Mapping[str, Any] = {
        "shots": shots,
        "draws": list(draws),
        "train": to_json(given.train),
        "test": to_json(given.test),
    }
    trained = model if isinstance(model, Training) else model.training
    kind = "" if isinstance(model, Training) else "untrained-"
    name = f"{shots}-shot-{slug(task)}-{kind}{trained.name}"
    return Measurement(name, partial(_measure_heads, task=given, shots=shots, draws=tuple(draws)), (model,), inputs)


def _measure_heads(models: Sequence[Classifier], *, task: Task, shots: int, draws: Sequence[int]) -> Result:
    (model,) = models
    found = [fewshot(model, task.train, task.test, shots, draw) for draw in draws]
    return {"top1": sum(found) / len(found), "draws": found, "images": len(task.test)}


def slug(name: str) -> str:
    """Return `name` as the name of a folder."""
    return name.replace("/", "-").replace(" ", "-")


def _spec(model: AnySettings) -> ImageSpec:
    return ImageSpec(height=model.image_size.height, width=model.image_size.width)
