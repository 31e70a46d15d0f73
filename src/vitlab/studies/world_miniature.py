"""The world of minutes on two cores, with nothing to download: fractals to pre-train on, digits and unseen fractals to go to."""

from collections.abc import Callable, Mapping
from typing import Any

from vitlab.data.digits import Digits
from vitlab.data.fractals import Fractals
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Part
from vitlab.data.transforms import Augment, InceptionCrop
from vitlab.models.classifier import AnySettings
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size, as_size
from vitlab.nn.patches import Patches
from vitlab.nn.stem import ResNetStem
from vitlab.studies.recipe import RunSettings
from vitlab.studies.world import Task, Upstream, World
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.schedule import Cosine, Linear

PIXELS = 16
STEPS, BATCH, RATE, BETA2 = 1000, 64, 3e-3, 0.95
"""Of pre-training. Of rates from 1e-3 to 5e-3 and batches of 32 to 128 these gave Micro/4 the lowest loss for its time; with the
usual beta2 of 0.999 it is half a nat higher. After half the steps ViTs of small patches have hardly begun to learn."""
SHORT, SHORT_BATCH, SHORT_RATE = 100, 64, 0.03
"""Of fine-tuning. Of 0.03, 0.1 and 0.3 this rate was the best on average of four networks, on images that no study trains or
tests on."""


def fractals(classes: int, images: int, **changes: Any) -> Fractals:
    """Return upright fractals of 8 pixels, as digits are; a larger set holds the smaller ones."""
    return Fractals(num_classes=classes, images_per_class=images, image_size=8, views=1, **changes)


SETS: Mapping[Upstream, Fractals] = {"small": fractals(20, 50), "medium": fractals(60, 50), "large": fractals(200, 50)}
"""Each is a few times the one before, in images and in classes."""


def vit(num_classes: int | None = len(SETS["large"].classes), *, patch: int = 4, **changes: Any) -> ViTSettings:
    """Return the usual network, a twelfth as wide as ViT-B and a third as deep, with `changes`."""
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
    """Return a small BiT; each stage but the first halves its map, and of 16 pixels a side the root leaves 4."""
    classes = len(SETS["large"].classes)
    return ResNetSettings(image_size=as_size(PIXELS), root_width=root_width, depths=depths, num_classes=classes)


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
"""ViTs of two sizes and patch sizes, ResNets by layers and width, and hybrids whose stem is one stage of a ResNet."""


def _pretrain(model: AnySettings, network: str, data: Upstream) -> RunSettings:
    del network  # one recipe for all
    return pretraining(model, SETS[data])


def pretraining(model: AnySettings, data: Fractals, steps: int = STEPS) -> RunSettings:
    """Return the pre-training of `model`, with a head for the classes of `data`: Adam and a linear schedule, as table 3."""
    model = model.model_copy(update={"num_classes": len(data.classes)})
    return RunSettings(
        recipe="study-pretraining",
        model=model,
        train_data=data,
        image_spec=_spec(model),
        augment=Augment(crop=InceptionCrop(area=(0.8, 1.0)), flip=False),
        train=TrainSettings(
            steps=steps,
            batch_size=BATCH,
            lr=RATE,
            optimizer=Adam(beta2=BETA2, weight_decay=0.1),
            schedule=Linear(warmup_steps=steps // 10, end=1e-5),
            checkpoint_every=max(1, steps // 4),
        ),
    )


def _finetune(model: AnySettings, task: str) -> RunSettings:
    given = TASKS[task]()
    model = model.model_copy(update={"num_classes": len(given.train.classes)})
    return RunSettings(
        recipe="study-finetuning",
        model=model,
        train_data=given.train,
        evals={"test": given.test},
        image_spec=_spec(model),
        augment=Augment(crop=InceptionCrop(area=(0.6, 1.0)), flip=False),
        train=TrainSettings(
            steps=SHORT,
            batch_size=SHORT_BATCH,
            lr=SHORT_RATE,
            optimizer=SGD(),
            schedule=Cosine(warmup_steps=SHORT // 10),
        ),
    )


def _spec(model: AnySettings) -> ImageSpec:
    return ImageSpec(height=model.image_size.height, width=model.image_size.width)


def _divided(whole: Digits | Fractals) -> Task:
    train, test = (whole.model_copy(update={"part": Part(side=side, fraction=0.8)}) for side in ("train", "test"))
    return Task(train, test)


TASKS: Mapping[str, Callable[[], Task]] = {
    "digits": lambda: _divided(Digits()),
    "new fractals": lambda: _divided(fractals(20, 100, seed=1)),
}
"""A fifth is trained on: far less than what was pre-trained on. None of `SETS` has the classes of the new fractals."""

MINIATURE = World(
    scale="miniature",
    words="generated fractals in the place of JFT-300M, handwritten digits of 8×8 pixels and unseen fractals to go to",
    sets={name: lambda source=source: source for name, source in SETS.items()},
    titles={name: f"{len(source):,} fractals of {len(source.classes)} classes" for name, source in SETS.items()},
    tasks=TASKS,
    networks=NETWORKS,
    usual="Micro/4",
    task="digits",
    shots=10,
    seeds=(0, 1),
    pretrain=_pretrain,
    finetune=_finetune,
)
