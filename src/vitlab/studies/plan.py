"""From what a person asks for to the settings of a run: recipe, then options, then `--set`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from vitlab import files
from vitlab.config import difference, override
from vitlab.data.digits import Digits
from vitlab.data.labels import is_multi_label
from vitlab.data.loader import pixels_of
from vitlab.data.open import AnySource, open_data
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import DataError, ImageError, SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size, as_size
from vitlab.studies.recipe import (
    MASKED,
    MASKED_SMALL,
    PRETRAIN,
    PRETRAIN_SMALL,
    SCRATCH,
    TRANSFER,
    Origin,
    Recipe,
    RunSettings,
    hyperrule,
    hyperrule_size,
    micro_batch_for,
    steps_for,
)
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Softmax, check_objective, weights_for
from vitlab.weights.load import adapt, find, read

SMALL_PIXELS = 40
"""Images with no side longer than this are seen whole in patches of 4; larger ones are reduced to 48 in patches of 8."""
FEW = 1000
"""Images a class below which a ViT from fresh weights learns little that weights from elsewhere would not have known."""
SMALL_SIZE = 96
"""Models for images up to this many pixels are pre-trained with the gentler crop."""


@dataclass(frozen=True)
class Asked:
    """What a person asked for; None leaves a choice to the recipe."""

    data: str | None = None
    eval_data: str | None = None
    weights: str | Path | None = None
    model: str | None = None
    recipe: Literal["transfer", "bit", "pretrain", "masked"] | None = None
    image_size: int | tuple[int, int] | None = None
    steps: int | None = None
    epochs: float | None = None
    lr: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    eval_every: int | None = None
    checkpoint_every: int | None = None
    on_bad_image: Literal["fail", "skip"] = "fail"
    workers: int | None = None
    device: str = "auto"
    tensorboard: bool = False
    wandb: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The resolved settings of a run, its data, and how the settings differ from their recipe."""

    settings: RunSettings
    train: AnySource
    evals: dict[str, AnySource]
    differences: list[str]

    @property
    def advice(self) -> str | None:
        """What a person should know before so little is learnt from so few images; None when there is nothing to say."""
        each = len(self.train) // len(self.train.classes)
        unlabelled = isinstance(self.settings.train.objective, MaskedPatches)
        if unlabelled or self.settings.weights is not None or each >= FEW:
            return None
        return (
            f"{each:,} images a class are few for a ViT from fresh weights; pre-trained --weights usually do far better"
        )


def plan_finetune(asked: Asked) -> Plan:
    """Return the run that fine-tunes `asked.weights` on the data, or without weights trains a small model from scratch.

    Raises:
        RequestError: the data, weights, model or settings cannot be used, or contradict each other.
    """
    opened = _open(asked)
    if asked.weights is None:
        if asked.recipe is not None:
            raise SettingsError("--recipe", f"{asked.recipe} starts from weights", "give --weights, or leave it out")
        model = _named_model(asked, opened.train)
        return _resolve(SCRATCH, asked, opened, model, ImageSpec())
    if asked.model is not None:
        raise SettingsError("--model", "contradicts --weights, which say what the model is", "give one of the two")
    file = find(asked.weights)
    contents = read(file)
    recipe, size = _transfer(asked, opened.train, contents.settings)
    model = adapt(
        contents.settings,
        "--image-size",
        num_classes=len(opened.train.classes),
        image_size=size,
        keep_representation=contents.classes == opened.train.classes,
    ).model_copy(update={"head_bias": 0.0})
    origin = Origin(path=str(file.resolve()), sha256=files.sha256(file))
    return _resolve(recipe, asked, opened, model, contents.image_spec, origin)


def _transfer(asked: Asked, source: AnySource, settings: AnySettings) -> tuple[Recipe, Size]:
    """Return how to fine-tune weights, and at which size: ResNets by BiT's rule, ViTs by the paper's, unless asked otherwise."""
    asked_size = as_size(asked.image_size) if asked.image_size else None
    name = asked.recipe or ("bit" if isinstance(settings, ResNetSettings) else "transfer")
    if name == "transfer":
        return TRANSFER, asked_size or settings.image_size
    height, width = _first_size(source) or (SMALL_PIXELS, SMALL_PIXELS)
    side = hyperrule_size(height * width)
    return hyperrule(len(source), height * width), asked_size or Size(side, side)


def plan_pretrain(asked: Asked) -> Plan:
    """Return the run that trains a named model from fresh weights, with the representation layer that pre-training has.

    The recipe "masked" leaves the labels alone: its model has neither that layer nor a head.

    Raises:
        RequestError: the data, model or settings cannot be used.
    """
    opened = _open(asked)
    model = _named_model(asked, opened.train)
    small = max(model.image_size) <= SMALL_SIZE
    if asked.recipe == "masked":
        headless = model.model_copy(update={"num_classes": None})
        return _resolve(MASKED_SMALL if small else MASKED, asked, opened, headless, ImageSpec())
    if isinstance(model, ViTSettings):
        model = model.model_copy(update={"representation_dim": model.width})
    return _resolve(PRETRAIN_SMALL if small else PRETRAIN, asked, opened, model, ImageSpec())


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the first of CUDA, MPS and CPU that there is.

    Raises:
        SettingsError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).tolist()  # some devices can be named but hold no numbers
    except (RuntimeError, AssertionError):
        raise SettingsError("--device", f"there is no '{name}' here", "use auto or cpu") from None
    return device


@dataclass(frozen=True)
class _Sources:
    """What to train on, and what to evaluate on by name."""

    train: AnySource
    evals: dict[str, AnySource]


def evaluation_source(name: str) -> AnySource:
    """Return what the data set `name` offers to evaluate on: its ready test or validation split, else all of it."""
    opened = open_data(name)
    return opened.whole or opened.evals.get("test") or next(iter(opened.evals.values()))


def _open(asked: Asked) -> _Sources:
    if asked.data is None:
        raise SettingsError("DATA", "is missing", "give a folder of images, or 'digits' to try it out")
    opened = open_data(asked.data)
    if opened.train is None:
        raise DataError(asked.data, "has nothing to train on", "add a train folder beside the others")
    if asked.eval_data is None:
        return _Sources(opened.train, opened.evals)
    return _Sources(opened.whole or opened.train, {"eval": evaluation_source(asked.eval_data)})


def _named_model(asked: Asked, source: AnySource) -> AnySettings:
    small_name, small_size = _defaults_for(source)
    name = asked.model or small_name
    size = asked.image_size or (small_size if "Mini" in name else 224)
    return settings_for(name, len(source.classes), size)


def _defaults_for(source: AnySource) -> tuple[str, int]:
    """Return the model and image size for training from scratch on images like the first that can be read."""
    longest = max(_first_size(source) or (SMALL_PIXELS + 1, 0))
    return ("Mini/4", max(28, longest // 4 * 4)) if longest <= SMALL_PIXELS else ("Mini/8", 48)


def _first_size(source: AnySource) -> tuple[int, int] | None:
    """Return the height and width of the first image that can be read, None when none of the first ten can."""
    for index in range(min(len(source), 10)):
        try:
            height, width = pixels_of(source.read(index)).shape[:2]
        except ImageError:
            continue  # training names every bad image, or skips them where that was asked for
        return height, width
    return None


def _resolve(
    recipe: Recipe, asked: Asked, opened: _Sources, model: AnySettings, spec: ImageSpec, weights: Origin | None = None
) -> Plan:
    """Return the recipe's settings for this model and data with the person's choices on top, and what they changed."""
    if asked.epochs is not None and not asked.epochs > 0:
        raise SettingsError("--epochs", f"{asked.epochs:g} is not above zero", "give a number of passes over the data")
    if asked.steps and asked.epochs:
        raise SettingsError("--epochs", "contradicts --steps", "give one of the two")
    flip = recipe.augment.flip and not isinstance(opened.train, Digits)
    base = RunSettings(
        recipe=recipe.name,
        model=model,
        weights=weights,
        train_data=opened.train,
        evals=opened.evals,
        image_spec=spec.model_copy(update={"height": model.image_size.height, "width": model.image_size.width}),
        augment=recipe.augment.model_copy(update={"flip": flip}),
        train=_with_intervals(recipe.training(recipe.steps), asked),
        on_bad_image=asked.on_bad_image,
        workers=_workers(asked, opened.train),
        device=str(choose_device(asked.device)),
        tensorboard=asked.tensorboard,
        wandb=asked.wandb,
    )
    options = {"lr": asked.lr, "batch_size": asked.batch_size, "seed": asked.seed}
    several = isinstance(base.train.objective, Softmax) and is_multi_label(opened.train.labels)
    changes = ["train.objective=Sigmoid"] * several  # Softmax is for one label an image
    changes += [f"train.{name}={value}" for name, value in options.items() if value is not None]
    changes += asked.changes
    steps = asked.steps
    if asked.epochs:
        steps = steps_for(asked.epochs, opened.train, override(base, changes).train.batch_size)
    if steps:
        changes.insert(0, f"train.steps={steps}")
    steps = override(base, changes).train.steps  # schedule and intervals follow it, whichever option said it
    settings = base.model_copy(update={"train": _with_intervals(recipe.training(steps), asked)})
    settings = override(settings, changes)
    _check(settings, opened)
    differences = difference(base, settings)
    micro = settings.train.micro_batch_size or micro_batch_for(settings.model, settings.train.batch_size)
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"micro_batch_size": micro})})
    return Plan(settings, opened.train, opened.evals, differences)


def _with_intervals(train: TrainSettings, asked: Asked) -> TrainSettings:
    """Return `train` with the asked intervals between evaluations and checkpoints; by default ten of each in a run."""
    tenth = max(1, train.steps // 10)
    return train.model_copy(
        update={"eval_every": asked.eval_every or tenth, "checkpoint_every": asked.checkpoint_every or tenth}
    )


def _workers(asked: Asked, source: AnySource) -> int:
    """Return how many processes read ahead: none for data that is already pixels, else half of the cores."""
    if asked.workers is not None:
        return asked.workers
    in_memory = not isinstance(source.read(0).data, bytes)
    return 0 if in_memory else min(8, max(1, (os.cpu_count() or 1) // 2))


def _check(settings: RunSettings, opened: _Sources) -> None:
    """Refuse overrides that would contradict the data or each other."""
    objective, classes = settings.train.objective, len(opened.train.classes)
    if settings.recipe == "masked" and not isinstance(objective, MaskedPatches):
        raise SettingsError("--set train.objective", "the recipe masked has no labels", "use --recipe pretrain")
    if not isinstance(objective, MaskedPatches) and settings.model.num_classes != classes:
        raise SettingsError("--set model.num_classes", f"the data have {classes} classes", "leave it to the data")
    check_objective(objective, settings.model)
    weights_for(objective, opened.train.classes, opened.train.labels)
    spec_size = Size(settings.image_spec.height, settings.image_spec.width)
    if spec_size != settings.model.image_size:
        raise SettingsError(
            "--set",
            f"the model is for {settings.model.image_size} pixels, image_spec says {spec_size}",
            "use --image-size",
        )
