"""The recipes as people and programs read them: a table of all, and one in full."""

from typing import Any, NamedTuple, cast

from vitlab.config import Settings, to_json
from vitlab.studies.recipe import Expected, Recipe, recipes
from vitlab.train.masked import MaskedPatches
from vitlab.train.schedule import Linear


class Row(NamedTuple):
    """One line of the table of recipes, as words."""

    name: str
    verb: str
    model: str
    data: str
    length: str
    batch: str
    rate: str
    decay: str
    source: str


def table() -> list[Row]:
    """Return a row for every recipe: those for pre-training, then those for fine-tuning."""
    return [_row(recipe) for verb in ("pretrain", "finetune") for recipe in recipes().values() if recipe.verb == verb]


def in_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe with what it is known to lead to, as plain JSON values."""
    return to_json(recipe) | {"expected": [to_json(row) for row in recipe.expected]}


def in_full(recipe: Recipe) -> list[tuple[str, str]]:
    """Return every value of a recipe in words, each behind its name."""
    train, model = recipe.train, {name: _value(value) for name, value in recipe.model.items()}
    sizes = [f"{side} pixels for {name}" for name, side in recipe.image_sizes.items()]
    lines = [
        ("verb", f"vitlab {recipe.verb}"),
        ("model", _row(recipe).model),
        ("made for", recipe.data or "any data set"),
        ("length", _length(recipe)),
        ("batch", f"{train.batch_size:,} images"),
        ("rate", f"{train.lr:g}" + (f", one of {_each(recipe.lrs)}" if len(recipe.lrs) > 1 else "")),
        ("held out", f"{recipe.dev:.0%} of the training images, to choose the rate" if recipe.dev else ""),
        ("schedule", _schedule(recipe)),
        ("optimizer", _kind(train.optimizer)),
        ("clipping", "none" if train.clip_norm is None else f"global norm {train.clip_norm:g}"),
        ("objective", _kind(train.objective)),
        ("model.*", ", ".join(f"{name} {value}" for name, value in model.items())),
        ("average", "" if train.average is None else f"of the weights, factor {train.average:g} a step"),
        (
            "size",
            ", ".join([f"{recipe.image_size} pixels", *sizes])
            if recipe.image_size
            else "that of the weights or images",
        ),
        ("training crop", _kind(recipe.augment.crop) + (", flips" if recipe.augment.flip else "")),
        *((name, _shown(part)) for name in ("randaugment", "erasing") if (part := getattr(recipe.augment, name))),
        *(
            ("on " + name, ", ".join(_change(part, value) for part, value in changes.items()))
            for name, changes in recipe.augment_on.items()
        ),
        ("source", recipe.source),
        *(("not stated", line) for line in recipe.unstated),
    ]
    return [(name, text) for name, text in lines if text]


def results(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """Return what a recipe is known to lead to: the way there, the data set, top-1 in percent, and where that is from."""
    return [(_way(row), row.on, _top1(row), "; ".join(filter(None, (row.source, row.note)))) for row in recipe.expected]


def _row(recipe: Recipe) -> Row:
    train = recipe.train
    model = " or ".join(recipe.models) or ("any ViT" if isinstance(train.objective, MaskedPatches) else "any model")
    length = f"{recipe.epochs:g} epochs" if recipe.epochs else f"{train.steps:,} steps"
    decay = f"{train.optimizer.weight_decay:g}"
    words = model, recipe.data or "any", length, f"{train.batch_size:,}", f"{train.lr:g}", decay
    return Row(recipe.name, recipe.verb, *words, recipe.source)


def _length(recipe: Recipe) -> str:
    steps = f"{recipe.train.steps:,} steps"
    return steps if not recipe.epochs else f"{recipe.epochs:g} epochs: {steps} for {recipe.images:,} images"


def _schedule(recipe: Recipe) -> str:
    schedule = recipe.train.schedule
    warmup = f"{schedule.warmup_steps:,} steps of warm-up"
    if recipe.adapts:
        warmup += " or a tenth of the run"
    end = f" to {schedule.end:g}" if isinstance(schedule, Linear) else ""
    return f"{schedule.type}{end}, {warmup}"


def _shown(part: Settings) -> str:
    return " ".join(f"{name}={value}" for name, value in part)


def _kind(settings: Settings) -> str:
    """Return a part by its type and those of its options that are not as they are by default, or that define it."""
    values = {name: value for name, value in to_json(settings).items() if not isinstance(value, dict)}
    return " ".join([str(values.pop("type")), *(f"{name}={_value(value)}" for name, value in values.items())])


def _change(part: str, value: Any) -> str:
    return f"{part} {value['type'] if isinstance(value, dict) else _value(value)}"


def _each(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "–".join(_value(each) for each in cast(list[Any], value))
    if value is None or isinstance(value, bool):
        return "none" if value is None else "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _way(row: Expected) -> str:
    return f"{row.pretrained}, then {row.finetuned}" if row.finetuned else row.pretrained


def _top1(row: Expected) -> str:
    return f"{row.top1:.2f}" + (f" ± {row.deviation:.2f}" if row.deviation is not None else "")
