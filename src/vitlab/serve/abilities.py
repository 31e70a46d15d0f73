"""Abilities: what can be shown of a model, and in words why the rest cannot."""

from typing import Any

from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.inspection.attention import attends_globally
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.models.vit import Axial, ViT, ViTSettings
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, ClassToken, FirstPatch, Mean
from vitlab.serve.predict import Predictor

Json = dict[str, Any]
GRAPH = "This is an exported graph: it answers, but nothing inside it can be looked at. Serve the run or its weights for that."
MAX_MAP_BYTES = 16 << 20
"""The largest answer: every query of one head at 4,096 patches, as at 1,024 px with patches of 16."""


def describe(name: str, predictor: Predictor) -> Json:
    """Return what the page has to know of a model before an image is there."""
    model, spec = predictor.inside, predictor.spec
    found: Json = {
        "name": name,
        "title": title_of(predictor.settings),
        "classes": len(predictor.classes),
        "probabilities": predictor.probabilities,
        "height": spec.height,
        "width": spec.width,
        "preparation": preparation(spec),
        "fraction": spec.fit.fraction if isinstance(spec.fit, CentralCrop) else None,
        "max_bytes": spec.limits.max_bytes,
        "attention": None,
        "cannot": {
            "attention": why_no_attention(model),
            "positions": why_no_positions(model),
            "filters": why_no_filters(model),
            "lens": why_no_lens(model),
        },
    }
    if model is not None and attends_globally(model) and not found["cannot"]["attention"]:
        s = model.settings
        found["attention"] = {
            "rows": s.grid.rows,
            "columns": s.grid.columns,
            "cell": list(s.stem.cell),
            "layers": s.depth,
            "heads": s.num_heads,
            "prefix": s.num_prefix,
            "pooled": pooled_name(model),
        }
    return found


def title_of(settings: AnySettings) -> str:
    """Return a model's family and dimensions in a line."""
    family = settings.family.removeprefix("A ").removeprefix("An ")
    axial = isinstance(settings, ViTSettings) and isinstance(settings.attention, Axial)
    return f"{family}{', axial' if axial else ''}: {settings.describe()}"


def why_no_attention(model: Classifier | None) -> str | None:
    """Return why there are no maps from patch to patch, None where there are."""
    if model is None:
        return GRAPH
    if not isinstance(model, ViT):
        return "This is a ResNet: it has no attention between patches, so there is no rollout and no map of a layer or head."
    if not attends_globally(model):
        return (
            "This model attends within columns, then within rows (axial attention): no layer has a map from every patch to "
            "every patch, so there is no rollout either."
        )
    if map_bytes(model) > MAX_MAP_BYTES:
        return f"With {model.settings.grid.cells:,} patches the attention of one head is too large to send to a page."
    return None


def why_no_positions(model: Classifier | None) -> str | None:
    """Return why there is no similarity of positions, None where there is."""
    if model is None:
        return GRAPH
    if not isinstance(model, ViT):
        return "A ResNet has no positions: its convolutions know what is beside what."
    if model.position is None:
        return f"This model has no table of positions after its stem (its kind is {model.settings.position.type})."
    if map_bytes(model) > MAX_MAP_BYTES:
        return f"{model.settings.grid.cells:,} positions are too many for a page."
    return None


def why_no_filters(model: Classifier | None) -> str | None:
    """Return why there are no filters to be shown, None where there are."""
    if model is None:
        return GRAPH
    if not isinstance(model, ViT):
        return "A ResNet has no filters of patches."
    if not isinstance(model.settings.stem, Patches):
        return "The filters of a hybrid read a feature map and cannot be shown as colours."
    return None


def why_no_lens(model: Classifier | None) -> str | None:
    """Return why there is no answer by depth, None where there is."""
    if model is None:
        return GRAPH
    if not isinstance(model, ViT):
        return "The head of a ResNet fits the features of its last layer alone."
    return None


def preparation(spec: ImageSpec) -> list[str]:
    """Return in words what happens to an image before the model sees it."""
    size = f"{spec.width} × {spec.height} pixels (width × height)"
    match spec.fit:
        case Squash():
            fit = f"the whole image, resized to {size} whatever its shape"
        case CentralCrop(fraction=fraction):
            fit = f"the middle, {100 * fraction:.4g} % of the side that limits it, resized to {size}"
    pixels = (
        "upright, in sRGB, over white" if spec.decoding == "standard" else "as stored: no rotation, no colour profile"
    )
    ends = {
        tuple(round((value - mean) / std, 2) for value in (0, 1)) for mean, std in zip(spec.mean, spec.std, strict=True)
    }
    if len(ends) == 1:
        values = "values from {:g} to {:g}".format(*ends.pop()).replace("-", "−")
    else:
        values = f"values minus {_numbers(spec.mean)}, divided by {_numbers(spec.std)} (red, green, blue)"
    return [
        f"Pixels {pixels}",
        f"Seen is {fit}",
        f"Resized by {spec.interpolation} interpolation, antialiased",
        values.capitalize(),
    ]


def pooled_name(model: ViT) -> str:
    """Return what the model's answer is made from, for people."""
    match model.settings.pool:
        case ClassToken():
            return "the class token"
        case FirstPatch():
            return "the first patch, which is pooled"
        case Mean() | AttentionPool():
            return "all patches, on average"


def map_bytes(model: ViT) -> int:
    """Return how many bytes the maps of one head have: of the pooled output, and of each patch."""
    cells = model.settings.grid.cells
    return cells * (cells + 1)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
