"""RunSettings: everything that makes a run, and the recipes that fill it in.

The recipes are data: `recipes/*.json`, and in `recipes/expected.csv` what they are known to lead to.
"""

import csv
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, cast

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from vitlab.config import Json, Settings, loads, nearest, parse, to_json
from vitlab.cost.memory import bytes_per_image
from vitlab.data.catalog import Catalogued
from vitlab.data.digits import Digits
from vitlab.data.open import AnySource
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Source
from vitlab.data.transforms import Augment, InceptionCrop
from vitlab.errors import SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings, ModelSettings
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size, as_size
from vitlab.nn.stem import ResNetStem
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches
from vitlab.train.schedule import Staircase
from vitlab.train.tree import is_power_of_two

MEMORY_BYTES = 2 << 30
"""What the activations of one micro-batch may take; a fixed number, because the split decides the last bits of a run."""
EXACT_PIECES = 8
"""In so many pieces at least is a batch divided that is to give the same bits on 1, 2, 4 or 8 processes."""
SMALL_SIZE = 96
SMALL_CROP = InceptionCrop(area=(0.35, 1.0))
"""What recipes that adapt cut out of images of up to `SMALL_SIZE` pixels, which lose their object in a twentieth of the area."""

Verb = Literal["finetune", "pretrain"]


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


class Expected(Settings):
    """A published accuracy in percent: top-1, or for VTAB the mean over its tasks.

    `pretrained` is the recipe or the weights that the model comes from, `finetuned` the recipe that followed ("" for none), `on`
    the data set it was measured on. `deviation` is over runs where it was published; `note` says what else the number depends on.
    """

    pretrained: str
    finetuned: str
    on: str
    top1: float
    deviation: float | None
    note: str
    source: str

    def is_of(self, settings: AnySettings) -> bool:
        """Return whether it was measured with the network of `settings`, whatever its image size and head."""
        known = recipes().get(self.pretrained)
        return known is not None and known.model_for(settings) is not None


class Recipe(Settings):
    """A published way to train, or ours: the data it was made for, its settings, and where each of them is from.

    `models` are the models it is for; without any it takes every model. `data` is a name of the catalog or a plain one, and
    `images` the size of that training set; with `epochs` the steps follow from the training set that a run has. `lrs` are the rates
    that its authors chose from, on the share `dev` of the training images, which they held out for that. `image_sizes` are for
    models that need another than `image_size`; where that is None too, the size is that of the weights or of the images. `model`
    are changes of a fresh model's settings, `augment_on` of `augment` for certain data sets of the catalog. `unstated` says where a
    value is from that the source does not state.

    A recipe that `adapts` is ours: its warm-up is a tenth of a shorter run, and small images are cropped less. Another keeps its
    warm-up, and a run that is not longer is refused. The marks of a staircase move with the number of steps.
    """

    name: str
    verb: Verb
    models: tuple[str, ...] = ()
    data: str = ""
    images: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    train: TrainSettings
    lrs: tuple[PositiveFloat, ...] = ()
    dev: Annotated[float, Field(gt=0, lt=1)] | None = None
    image_size: PositiveInt | None = None
    image_sizes: Mapping[str, PositiveInt] = Field(default_factory=dict)
    model: Mapping[str, Any] = Field(default_factory=dict)
    augment: Augment
    augment_on: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    adapts: bool = False
    source: str
    unstated: tuple[str, ...] = ()

    @property
    def expected(self) -> list[Expected]:
        """What it is known to lead to, on its own or with a recipe that comes before or after it."""
        return [row for row in expectations() if self.name in (row.pretrained, row.finetuned)]

    def steps_on(self, source: Source) -> int:
        """Return how many updates a run on `source` has."""
        return steps_for(self.epochs, len(source), self.train.batch_size) if self.epochs else self.train.steps

    def training(self, steps: int) -> TrainSettings:
        """Return its settings for a run of `steps` updates."""
        schedule = self.train.schedule
        if isinstance(schedule, Staircase):
            warmup, *marks = (
                round(mark * steps / self.train.steps) for mark in (schedule.warmup_steps, *schedule.boundaries)
            )
            schedule = schedule.model_copy(update={"warmup_steps": warmup, "boundaries": tuple(marks)})
        elif self.adapts:
            schedule = schedule.model_copy(update={"warmup_steps": min(schedule.warmup_steps, steps // 10)})
        return self.train.model_copy(update={"steps": steps, "schedule": schedule})

    def augment_for(self, source: AnySource, size: Size) -> Augment:
        """Return what it does to images of `source` that a model sees at `size`; digits are never mirrored."""
        changes: Json = {}
        if isinstance(source, Catalogued):
            changes = dict(self.augment_on.get(source.name, {}))
        if self.adapts and isinstance(self.augment.crop, InceptionCrop) and max(size) <= SMALL_SIZE:
            changes["crop"] = to_json(SMALL_CROP)
        if isinstance(source, Digits):
            changes["flip"] = False
        return parse(Augment, to_json(self.augment) | changes, self.name)

    def model_for(self, settings: AnySettings) -> str | None:
        """Return which of `models` these `settings` are, None when they are none of them."""
        return next((name for name in self.models if _network(settings_for(name)) == _network(settings)), None)

    def size_for(self, settings: AnySettings) -> Size | None:
        """Return the image size for models of `settings`, None where it is that of the weights or of the images."""
        side = self.image_sizes.get(self.model_for(settings) or "", self.image_size)
        return as_size(side) if side else None

    def fresh(self, model: AnySettings) -> AnySettings:
        """Return `model` as it is pre-trained: with a representation layer, for masks without a head, and with what is changed."""
        if isinstance(self.train.objective, MaskedPatches):
            model = model.model_copy(update={"num_classes": None})
        elif isinstance(model, ViTSettings):
            model = model.model_copy(update={"representation_dim": model.width})
        return parse(type(model), to_json(model) | dict(self.model), f"recipe {self.name}")

    def refuse_other_models(self, settings: AnySettings, where: str) -> None:
        """Refuse a model that the recipe is not for; `where` is the option that names it.

        Raises:
            SettingsError: it is for another model; the message names a recipe for this one where there is one.
        """
        if not self.models or self.model_for(settings):
            return
        alike = [other for other in recipes().values() if (other.verb, other.data) == (self.verb, self.data)]
        fitting = next((other.name for other in alike if not other.models or other.model_for(settings)), None)
        remedy = f"choose {fitting}" if fitting else "`vitlab recipes` lists what there is"
        raise SettingsError(where, f"recipe {self.name} is for {' and '.join(self.models)}", remedy)


@cache
def recipes() -> Mapping[str, Recipe]:
    """Return every recipe by its name, in the order of the files."""
    found: dict[str, Recipe] = {}
    for file in ("jft", "imagenet21k", "imagenet", "augreg", "finetune", "laptop"):
        content = loads(_file(f"{file}.json"))
        for name, own in content["recipes"].items():
            data = _merged(content["shared"], own) | {"name": name}
            if data.get("epochs") and data.get("images"):
                steps = steps_for(data["epochs"], data["images"], data["train"]["batch_size"])
                data["train"] = data["train"] | {"steps": steps}
            found[name] = parse(Recipe, data, f"recipe {name}")
    return found


@cache
def expectations() -> tuple[Expected, ...]:
    """Return every published accuracy that a recipe can be compared with."""
    rows = csv.DictReader(_file("expected.csv").splitlines())
    return tuple(Expected.model_validate(row | {"deviation": row["deviation"] or None}) for row in rows)


def find_recipe(name: str, verb: Verb | None = None) -> Recipe:
    """Return the recipe called `name`; with `verb`, one for that verb.

    Raises:
        SettingsError: there is none, or it is for the other verb.
    """
    where, found = "--recipe" if verb else "NAME", recipes().get(name)
    if found is None:
        names = [each.name for each in recipes().values() if verb in (None, each.verb)]
        raise SettingsError(where, f"there is no recipe '{name}'", nearest(name, names, "see `vitlab recipes`"))
    if verb not in (None, found.verb):
        raise SettingsError(where, f"{name} is for `vitlab {found.verb}`", f"`vitlab recipes` lists those for {verb}")
    return found


def transfer(steps: int = 500) -> TrainSettings:
    """Return the paper's fine-tuning: SGD with momentum, cosine, no weight decay, batch 512 (table 4, appendix B.1.1)."""
    return recipes()["transfer"].training(steps)


def steps_for(epochs: float, images: int, batch_size: int) -> int:
    """Return how many updates show each of `images` about `epochs` times, and not fewer; at least one."""
    return max(1, math.ceil(epochs * images / batch_size))


def micro_batch_for(model: AnySettings, training: TrainSettings, world: int = 1) -> int | None:
    """Return how many images the pieces of a batch have, None when all of it is one piece.

    A piece is the largest whose activations fit `MEMORY_BYTES`, in the precision of `training` and with layers computed again
    where it says so, and of which each of `world` processes gets as many. In an exact run there are 8, 16, 32, … pieces (4, 2 or 1
    where the batch divides into no more), so that the same ones are made on 1, 2, 4 or 8 processes.

    Raises:
        SettingsError: the batch does not divide so.
    """
    batch_size, exact = training.batch_size, training.exact
    if exact and not is_power_of_two(world):
        what = f"{world} processes cannot make the same bits as one"
        raise SettingsError("train.exact", what, f"use {1 << world.bit_length() - 1} or {1 << world.bit_length()}")
    each = bytes_per_image(model, half=training.precision == "bfloat16", remat=training.remat)
    fitting = max(1, MEMORY_BYTES // each)
    pieces = _pieces(batch_size, fitting, world, exact)
    if pieces is not None:
        return None if pieces == 1 else batch_size // pieces
    lower = next((size for size in range(batch_size - 1, 0, -1) if _pieces(size, fitting, world, exact)), None)
    higher = next(
        size for size in range(batch_size + 1, 4 * (batch_size + world)) if _pieces(size, fitting, world, exact)
    )
    into = "8, 16, 32, … equal pieces that fit the memory" if exact else f"equal pieces for {world} processes"
    use = f"use {higher}" if lower is None else f"use {lower} or {higher}"
    raise SettingsError("--batch-size", f"{batch_size} images do not divide into {into}", use)


def _pieces(batch_size: int, fitting: int, world: int, exact: bool) -> int | None:
    """Return the smallest number of pieces of at most `fitting` images that the batch divides into, None when there is none."""
    fewest = -(-batch_size // fitting)
    if exact:
        most = batch_size & -batch_size  # the largest power of two that divides it
        candidates = [1 << power for power in range(most.bit_length())]
        fewest = max(fewest, min(EXACT_PIECES, most))
    else:
        candidates = range(world, batch_size + 1, world)
    return next((n for n in candidates if n >= fewest and n % world == 0 and batch_size % n == 0), None)


def _network(settings: AnySettings) -> tuple[Any, ...]:
    """Return what tells the models of the catalog apart, whatever their image size and head."""
    if isinstance(settings, ResNetSettings):
        return settings.unit.type, settings.depths, settings.root_width
    depths = settings.stem.depths if isinstance(settings.stem, ResNetStem) else ()
    encoder = settings.width, settings.depth, settings.num_heads, settings.mlp_dim
    return settings.attention.type, *encoder, settings.stem.cell, depths


def _merged(shared: Json, own: Json) -> Json:
    """Return `shared` with the values of `own` in their place; a part of another kind replaces all of the former."""
    merged = dict(shared)
    for name, value in own.items():
        former = shared.get(name)
        alike = isinstance(value, dict) and isinstance(former, dict) and value.get("type") in (None, former.get("type"))
        merged[name] = _merged(cast(Json, former), cast(Json, value)) if alike else value
    return merged


def _file(name: str) -> str:
    return (resources.files("vitlab.studies") / "recipes" / name).read_text(encoding="utf-8")
