"""From what a person asks for to the settings of a run: recipe, then options, then `--set`."""

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vitlab import files
from vitlab.config import difference, override, read_json
from vitlab.data.labels import is_multi_label
from vitlab.data.leaks import leak_warning
from vitlab.data.loader import pixels_of
from vitlab.data.open import AnySource, open_data
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Source
from vitlab.errors import DataError, ImageError, SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size, as_size
from vitlab.studies.hyperrule import hyperrule
from vitlab.studies.recipe import Origin, Recipe, RunSettings, find_recipe, micro_batch_for, steps_for
from vitlab.studies.resources import largest_micro_batch
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Softmax, check_objective, weights_for
from vitlab.train.precision import Precision, best_precision
from vitlab.train.run import CONFIG
from vitlab.weights.load import adapt, find, read

_log = logging.getLogger("vitlab")
SMALL_PIXELS = 40
"""Images with no side longer than this are seen whole in patches of 4; larger ones are reduced to 48 in patches of 8."""
SCRATCH = "scratch"
"""The one recipe for fine-tuning that starts without weights."""
FEW = 1000
"""Images a class below which a ViT from fresh weights learns little that weights from elsewhere would not have known."""


@dataclass(frozen=True)
class Asked:
    """What a person asked for; None leaves a choice to the recipe. `world` is how many processes will train together."""

    data: str | None = None
    eval_data: str | None = None
    weights: str | Path | None = None
    model: str | None = None
    recipe: str | None = None
    image_size: int | tuple[int, int] | None = None
    steps: int | None = None
    epochs: float | None = None
    lr: float | None = None
    batch_size: int | Literal["auto"] | None = None
    precision: Precision | Literal["auto"] = "auto"
    compile: bool = False
    remat: bool = False
    exact: bool = False
    sharded: bool = False
    seed: int | None = None
    eval_every: int | None = None
    checkpoint_every: int | None = None
    on_bad_image: Literal["fail", "skip"] = "fail"
    workers: int | None = None
    device: str = "auto"
    tensorboard: bool = False
    world: int = 1
    wandb: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The resolved settings of a run, its data, its recipe and how the settings differ from that."""

    recipe: Recipe
    settings: RunSettings
    train: AnySource
    evals: dict[str, AnySource]
    differences: list[str]

    @property
    def advice(self) -> list[str]:
        """What a person should know before so little is learnt, each in a line."""
        images, batch = len(self.train), self.settings.train.batch_size
        each = images // len(self.train.classes)
        unlabelled = isinstance(self.settings.train.objective, MaskedPatches)
        lines: list[str] = []
        if not (unlabelled or self.settings.weights is not None or each >= FEW):
            lines.append(
                f"{each:,} images a class are few for a ViT from fresh weights; pre-trained --weights usually do far better"
            )
        if batch > images:
            lines.append(f"a batch of {batch:,} shows the {images:,} training images more than once in each update")
        return lines


def plan_finetune(asked: Asked) -> Plan:
    """Return the run that fine-tunes `asked.weights` on the data, or without weights trains a small model from scratch.

    Raises:
        RequestError: the data, weights, model or settings cannot be used, or contradict each other.
    """
    recipe = find_recipe(asked.recipe, "finetune") if asked.recipe else None
    if asked.weights is None and recipe is not None and recipe.name != SCRATCH:
        raise SettingsError("--recipe", f"{recipe.name} starts from weights", "give --weights, or leave it out")
    if asked.weights is not None and asked.model is not None:
        raise SettingsError("--model", "contradicts --weights, which say what the model is", "give one of the two")
    if asked.weights is not None and recipe is not None and recipe.name == SCRATCH:
        raise SettingsError("--recipe", f"{SCRATCH} starts from nothing", "leave out --weights, or --recipe")
    opened = _open(asked)
    if asked.weights is None:
        model = _named_model(asked, opened.train)
        return _resolve(find_recipe(SCRATCH), asked, opened, model, ImageSpec())
    file = find(asked.weights)
    contents = read(file)
    recipe = _transfer(recipe, opened.train, contents.settings)
    recipe.refuse_other_models(contents.settings, f"--weights {asked.weights}")
    in_recipe = recipe.size_for(contents.settings)
    model = adapt(
        contents.settings,
        "--image-size",
        num_classes=len(opened.train.classes),
        image_size=as_size(asked.image_size) if asked.image_size else in_recipe or contents.settings.image_size,
        keep_representation=contents.classes == opened.train.classes,
    ).model_copy(update={"head_bias": 0.0})
    origin = Origin(path=str(file.resolve()), sha256=files.sha256(file))
    return _resolve(recipe, asked, opened, model, contents.image_spec, origin)


def _transfer(recipe: Recipe | None, source: AnySource, settings: AnySettings) -> Recipe:
    """Return how to fine-tune weights: ResNets by BiT's rule, ViTs by the paper's, unless a recipe was asked for."""
    chosen = recipe or find_recipe("bit" if isinstance(settings, ResNetSettings) else "transfer")
    if chosen.name != "bit":
        return chosen
    height, width = _first_size(source) or (SMALL_PIXELS, SMALL_PIXELS)
    return hyperrule(len(source), height * width)


def plan_pretrain(asked: Asked) -> Plan:
    """Return the run that trains a named model from fresh weights, with the representation layer that pre-training has.

    A recipe of masked patches leaves the labels alone: its model has neither that layer nor a head.

    Raises:
        RequestError: the data, model or settings cannot be used.
    """
    recipe = find_recipe(asked.recipe or "pretrain", "pretrain")
    if asked.model:
        recipe.refuse_other_models(settings_for(asked.model), f"--model {asked.model}")
    opened = _open(asked)
    model = recipe.fresh(_named_model(asked, opened.train, recipe))
    return _resolve(recipe, asked, opened, model, ImageSpec())


def divided_as(asked: Asked, run: Path) -> Asked:
    """Return `asked` with batches in the pieces of the run that it continues, if it says nothing else.

    How a batch is divided follows from the number of processes, and a run keeps what it was started with.
    """
    if not (run / CONFIG).exists():
        return asked
    stored = read_json(run / CONFIG).get("train", {}).get("micro_batch_size")
    images = _images(asked)
    if images and stored and images % stored:
        return asked  # it will be refused for the other batch, not for its pieces
    return replace(asked, changes=(f"train.micro_batch_size={json.dumps(stored)}", *asked.changes))


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
    if opened.whole is not None:
        return opened.whole
    return opened.evals["test"] if "test" in opened.evals else next(iter(opened.evals.values()))


def _open(asked: Asked) -> _Sources:
    if asked.data is None:
        raise SettingsError("DATA", "is missing", "give a folder of images, or 'digits' to try it out")
    opened = open_data(asked.data)
    if opened.train is None:
        raise DataError(asked.data, "has nothing to train on", "add a train folder beside the others")
    if asked.eval_data is None:
        return _Sources(opened.train, opened.evals)
    train, held_out = opened.whole or opened.train, evaluation_source(asked.eval_data)
    if leaks := leak_warning(train, held_out):
        _log.warning("--eval-data: %s", leaks)
    return _Sources(train, {"eval": held_out})


def _named_model(asked: Asked, source: AnySource, recipe: Recipe | None = None) -> AnySettings:
    small_name, small_size = _defaults_for(source)
    name = asked.model or (recipe.models[0] if recipe and recipe.models else small_name)
    size = asked.image_size or (recipe and recipe.image_size) or (small_size if "Mini" in name else 224)
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
    base = RunSettings(
        recipe=recipe.name,
        model=model,
        weights=weights,
        train_data=opened.train,
        evals=opened.evals,
        image_spec=spec.model_copy(update={"height": model.image_size.height, "width": model.image_size.width}),
        augment=recipe.augment_for(opened.train, model.image_size),
        train=_with_intervals(recipe.training(recipe.steps_on(opened.train)), asked),
        on_bad_image=asked.on_bad_image,
        workers=choose_workers(asked.workers, opened.train),
        device=str(choose_device(asked.device)),
        tensorboard=asked.tensorboard,
        wandb=asked.wandb,
    )
    options = {"lr": asked.lr, "batch_size": _images(asked), "seed": asked.seed, **_ways(asked, base.device)}
    several = isinstance(base.train.objective, Softmax) and is_multi_label(opened.train.labels)
    changes = ["train.objective=Sigmoid"] * several  # Softmax is for one label an image
    changes += [f"train.{name}={value}" for name, value in options.items() if value is not None]
    changes += asked.changes
    steps, epochs = asked.steps, asked.epochs or (None if asked.steps else recipe.epochs)
    if epochs:
        steps = steps_for(epochs, len(opened.train), override(base, changes).train.batch_size)
    if steps:
        changes.insert(0, f"train.steps={steps}")
    steps = override(base, changes).train.steps  # schedule and intervals follow it, whichever option said it
    settings = base.model_copy(update={"train": _with_intervals(recipe.training(steps), asked)})
    settings = override(settings, changes)
    _check(recipe, settings, opened)
    differences = _size_difference(recipe, model) + difference(base, settings)
    train = settings.train
    micro = train.micro_batch_size or _piece(settings, asked)
    settings = settings.model_copy(update={"train": train.model_copy(update={"micro_batch_size": micro})})
    return Plan(recipe, settings, opened.train, opened.evals, differences)


def _size_difference(recipe: Recipe, model: AnySettings) -> list[str]:
    """Return a line where the model has not the image size of its recipe."""
    size = recipe.size_for(model)
    return [] if size in (None, model.image_size) else [f"model.image_size: {size} -> {model.image_size}"]


def _images(asked: Asked) -> int | None:
    return None if asked.batch_size == "auto" else asked.batch_size


def _ways(asked: Asked, device: str) -> dict[str, str | None]:
    """Return how the steps are computed, where it is not the plain way."""
    precision = best_precision(torch.device(device)) if asked.precision == "auto" else asked.precision
    chosen = {"precision": precision if precision != "float32" else None}
    switches = {"compile": asked.compile, "remat": asked.remat, "exact": asked.exact}
    chosen |= {name: "true" for name, on in switches.items() if on}
    return chosen | ({"parallel": "sharded"} if asked.sharded else {})


def _piece(settings: RunSettings, asked: Asked) -> int | None:
    if asked.batch_size == "auto":
        return largest_micro_batch(settings, asked.world)
    return micro_batch_for(settings.model, settings.train, asked.world)


def _with_intervals(train: TrainSettings, asked: Asked) -> TrainSettings:
    """Return `train` with the asked intervals between evaluations and checkpoints; by default ten of each in a run."""
    tenth = max(1, train.steps // 10)
    return train.model_copy(
        update={"eval_every": asked.eval_every or tenth, "checkpoint_every": asked.checkpoint_every or tenth}
    )


def choose_workers(asked: int | None, source: Source) -> int:
    """Return how many processes read ahead: by default none for data that is already pixels, else half of the cores."""
    if asked is not None:
        return asked
    in_memory = not isinstance(source.read(0).data, bytes)
    return 0 if in_memory else min(8, max(1, (os.cpu_count() or 1) // 2))


def _check(recipe: Recipe, settings: RunSettings, opened: _Sources) -> None:
    """Refuse overrides that would contradict the data or each other."""
    objective, classes = settings.train.objective, len(opened.train.classes)
    steps, warmup = settings.train.steps, settings.train.schedule.warmup_steps
    if steps <= warmup:
        what = f"a warm-up of {warmup:,} steps is not shorter than the run, which has {steps:,} (recipe {recipe.name})"
        remedy = f"give more --steps, or a shorter warm-up: --set train.schedule.warmup_steps={steps // 10}"
        raise SettingsError("train.schedule.warmup_steps", what, remedy)
    if isinstance(recipe.train.objective, MaskedPatches) and not isinstance(objective, MaskedPatches):
        what = f"the recipe {recipe.name} has no labels"
        raise SettingsError("--set train.objective", what, "use --recipe pretrain")
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
