"""Upstream: what the miniature studies share. Fractals are the large data set to pre-train on, digits the small one to go to.

Pre-training for one study is the same piece of work as for another, so it is done once for all of them.
"""

from collections.abc import Mapping, Sequence
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
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.studies.recipe import RunSettings
from vitlab.studies.work import Measurement, Result, Training, Untrained
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import Adam
from vitlab.train.schedule import Linear

PIXELS, PATCH = 16, 4
FRACTALS = Fractals(num_classes=200, images_per_class=50, image_size=8, views=1)
TRAIN = Digits(part=Part(side="train", fraction=0.8))
TEST = Digits(part=Part(side="test", fraction=0.8))
STEPS, BATCH, RATE = 400, 128, 5e-3


def vit(num_classes: int | None = len(FRACTALS.classes), **changes: Any) -> ViTSettings:
    """Return the network of the studies, a twelfth as wide as ViT-B and a third as deep, with `changes`."""
    usual: dict[str, Any] = {
        "image_size": Size(PIXELS, PIXELS),
        "stem": Patches(patch_size=Size(PATCH, PATCH)),
        "width": 64,
        "depth": 4,
        "num_heads": 4,
        "mlp_dim": 256,
        "num_classes": num_classes,
    }
    return ViTSettings(**{**usual, **changes})


def pretraining(
    name: str, model: AnySettings, data: Fractals = FRACTALS, *, seed: int = 0, steps: int = STEPS
) -> Training:
    """Return the pre-training of `model` on fractals: Adam with weight decay and a linear schedule, as table 3."""
    settings = RunSettings(
        recipe="study-pretraining",
        model=model,
        train_data=data,
        image_spec=ImageSpec(height=model.image_size.height, width=model.image_size.width),
        augment=Augment(crop=InceptionCrop(area=(0.5, 1.0)), flip=False),
        train=TrainSettings(
            steps=steps,
            batch_size=BATCH,
            lr=RATE,
            optimizer=Adam(weight_decay=0.1),
            schedule=Linear(warmup_steps=steps // 10, end=1e-5),
            seed=seed,
            checkpoint_every=max(1, steps // 4),
        ),
    )
    return Training(f"{name}-seed{seed}", settings)


def heads(name: str, model: Training | Untrained, shots: int, draws: Sequence[int] = range(3)) -> Measurement:
    """Return the measurement of linear heads on `shots` digits a class: `top1` is the mean over draws of the images."""
    inputs: Mapping[str, Any] = {"shots": shots, "draws": list(draws), "train": to_json(TRAIN), "test": to_json(TEST)}
    return Measurement(name, partial(_measure_heads, shots=shots, draws=tuple(draws)), (model,), inputs)


def _measure_heads(models: Sequence[Classifier], *, shots: int, draws: Sequence[int]) -> Result:
    (model,) = models
    found = [fewshot(model, TRAIN, TEST, shots, draw) for draw in draws]
    return {"top1": sum(found) / len(found), "draws": found, "images": len(TEST)}
