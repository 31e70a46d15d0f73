"""The world of hours on one GPU: CIFAR-100 in three sizes to pre-train on, CIFAR-10, SVHN and digits to go to."""

from collections.abc import Mapping
from functools import partial

from vitlab.data.digits import Digits
from vitlab.data.open import AnySource
from vitlab.data.source import Part
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import as_size
from vitlab.nn.stem import ResNetStem
from vitlab.studies.recipe import RunSettings, find_recipe
from vitlab.studies.world import Task, Upstream, World
from vitlab.studies.world_paper import named_set, named_task, run_settings

PIXELS = 32
SHARES: Mapping[Upstream, float | None] = {"small": 0.1, "medium": 0.4, "large": None}
"""Of CIFAR-100's 50,000 training images."""
EPOCHS = 100


def _set(data: Upstream) -> AnySource:
    whole, share = named_set("cifar100"), SHARES[data]
    return whole if share is None else whole.split(share, seed=0)[1]


def _named(name: str, **changes: object) -> AnySettings:
    return settings_for(name, image_size=PIXELS).model_copy(update=changes)


def _resnet(depths: tuple[int, ...], root_width: int) -> ResNetSettings:
    return ResNetSettings(image_size=as_size(PIXELS), depths=depths, root_width=root_width)


NETWORKS: Mapping[str, AnySettings] = {
    "Mini/8": _named("Mini/8"),
    "Mini/4": _named("Mini/4"),
    "Ti/8": _named("Ti/8"),
    "Ti/4": _named("Ti/4"),
    "R14x1": _resnet((2, 2), 64),
    "R26x1": _resnet((2, 2, 2, 2), 64),
    "R14x2": _resnet((2, 2), 128),
    "R8+Mini/4": _named("Mini/4", stem=ResNetStem(depths=(2,))),
    "R8+Ti/4": _named("Ti/4", stem=ResNetStem(depths=(2,))),
}


def _pretrain(model: AnySettings, network: str, data: Upstream) -> RunSettings:
    del network  # one recipe for all
    source = _set(data)
    recipe = find_recipe("pretrain", "pretrain").model_copy(update={"epochs": EPOCHS})
    model = model.model_copy(update={"num_classes": len(source.classes)})
    if isinstance(model, ViTSettings):
        model = model.model_copy(update={"representation_dim": None})
    return run_settings(recipe, model, source, {})


def _finetune(model: AnySettings, task: str) -> RunSettings:
    given = _task(task)
    model = model.model_copy(update={"num_classes": len(given.train.classes)})
    return run_settings(find_recipe("transfer", "finetune"), model, given.train, {"test": given.test})


def _task(name: str) -> Task:
    if name == "digits":
        train, test = (Digits(part=Part(side=side, fraction=0.8)) for side in ("train", "test"))
        return Task(train, test)
    return named_task(name)


SMALL = World(
    scale="small",
    words="CIFAR-100 in the place of JFT-300M, CIFAR-10, SVHN and digits to go to",
    sets={data: partial(_set, data) for data in SHARES},
    titles={"small": "5,000 images of CIFAR-100", "medium": "20,000 images of CIFAR-100", "large": "CIFAR-100"},
    tasks={name: partial(_task, name) for name in ("cifar10", "svhn", "digits")},
    networks=NETWORKS,
    usual="Mini/4",
    task="cifar10",
    shots=10,
    seeds=(0, 1, 2),
    pretrain=_pretrain,
    finetune=_finetune,
)
