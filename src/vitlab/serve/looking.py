"""What a model sees in one image and what it learned, as the few bytes that the web page draws."""

import base64
import io
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.data.source import Pixels
from vitlab.errors import RequestError
from vitlab.inspection.attention import attends_globally, attention_by_layer, rollout
from vitlab.inspection.embeddings import filter_components, position_similarity
from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViT
from vitlab.nn.grid import Grid
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, ClassToken, FirstPatch, Mean
from vitlab.serve.predict import Predictor

Json = dict[str, Any]
MAX_MAP_BYTES = 16 << 20
"""The largest answer: every query of one head at 4,096 patches, as at 1,024 px with patches of 16."""
ALL_HEADS_BYTES = 2 << 20
"""Up to so many bytes all heads of a layer come at once, which is all layers of a B/16 at 224 px (0.5 MB each)."""
MEAN = -1
"""The number that stands for the mean over heads where a head is asked for."""
SHEET_COLUMNS = 7


class CannotShowError(RequestError):
    """This model has nothing of the kind that is asked for."""


@dataclass(frozen=True)
class AttentionMaps:
    """What each query of a layer attends to: a row of `maps` uint8 [s, r, n] is 255 where its attention is highest.

    Of the r queries the first is what is pooled, the others are the n patches; of the s slices each is one of `heads`, -1 the mean
    over all of them. `peaks` [s, r] is the attention that 255 stands for, `prefix` [s, r] how much of the row goes to no patch but
    to the class token and registers.
    """

    heads: tuple[int, ...]
    maps: NDArray[np.uint8]
    peaks: NDArray[np.float32]
    prefix: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Return peaks, prefix and maps one after the other, floats as little-endian."""
        return b"".join((self.peaks.astype("<f4").tobytes(), self.prefix.astype("<f4").tobytes(), self.maps.tobytes()))


def describe(name: str, predictor: Predictor) -> Json:
    """Return what the page has to know of a model before an image is there."""
    model, spec = predictor.model, predictor.spec
    found: Json = {
        "name": name,
        "title": title_of(model),
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
        },
    }
    if attends_globally(model) and not found["cannot"]["attention"]:
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


def title_of(model: Classifier) -> str:
    """Return a model's family and dimensions in a line."""
    family = model.settings.family.removeprefix("A ").removeprefix("An ")
    axial = isinstance(model, ViT) and not attends_globally(model)
    return f"{family}{', axial' if axial else ''}: {model.settings.describe()}"


def why_no_attention(model: Classifier) -> str | None:
    """Return why there are no maps from patch to patch, None where there are."""
    if not isinstance(model, ViT):
        return "This is a ResNet: it has no attention between patches, so there is no rollout and no map of a layer or head."
    if not attends_globally(model):
        return (
            "This model attends within columns, then within rows (axial attention): no layer has a map from every patch to "
            "every patch, so there is no rollout either."
        )
    if _map_bytes(model) > MAX_MAP_BYTES:
        return f"With {model.settings.grid.cells:,} patches the attention of one head is too large to send to a page."
    return None


def why_no_positions(model: Classifier) -> str | None:
    """Return why there is no similarity of positions, None where there is."""
    if not isinstance(model, ViT):
        return "A ResNet has no positions: its convolutions know what is beside what."
    if model.position is None:
        return f"This model has no table of positions after its stem (its kind is {model.settings.position.type})."
    if _map_bytes(model) > MAX_MAP_BYTES:
        return f"{model.settings.grid.cells:,} positions are too many for a page."
    return None


def why_no_filters(model: Classifier) -> str | None:
    """Return why there are no filters to be shown, None where there are."""
    if not isinstance(model, ViT):
        return "A ResNet has no filters of patches."
    if not isinstance(model.settings.stem, Patches):
        return "The filters of a hybrid read a feature map and cannot be shown as colours."
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


def look(predictor: Predictor, prepared: Pixels, count: int = 5) -> Json:
    """Return the `count` most probable classes, the image as the model sees it (PNG), and its rollout where there is one."""
    top = predictor.answer([prepared])[0].top(count)
    model = predictor.model
    heat = None
    if attends_globally(model) and why_no_attention(model) is None:
        heat = scaled(rollout(model, as_input(model, prepared))[0].cpu().numpy())
    return {
        "top": [{"name": name, "probability": share} for name, share in top],
        "prepared": text_of(png(prepared)),
        "rollout": None if heat is None else text_of(heat.tobytes()),
    }


def attention_maps(predictor: Predictor, prepared: Pixels, layer: int, head: int = MEAN) -> AttentionMaps:
    """Return the attention of `layer` (from 0): of all heads and their mean where that is small, else of `head` and the mean.

    Raises:
        CannotShowError: the model has no such maps, no such layer or no such head.
    """
    model = predictor.model
    refuse(why_no_attention(model))
    if not attends_globally(model):
        raise TypeError("a model that attends otherwise has been refused")
    s = model.settings
    if not 0 <= layer < s.depth:
        raise CannotShowError("layer", f"there is no layer {layer}", f"give 0 to {s.depth - 1}")
    if not MEAN <= head < s.num_heads:
        raise CannotShowError(
            "head", f"there is no head {head}", f"give 0 to {s.num_heads - 1}, or {MEAN} for the mean"
        )
    every = (1 + s.num_heads) * _map_bytes(model) <= ALL_HEADS_BYTES
    heads = tuple(range(MEAN, s.num_heads)) if every else tuple(sorted({MEAN, head}))
    weights = next(islice(attention_by_layer(model, as_input(model, prepared)), layer, None))[0]
    slices = [_slice(model, weights.mean(dim=0) if each == MEAN else weights[each]) for each in heads]
    maps, peaks, prefix = (np.stack(part) for part in zip(*slices, strict=True))
    return AttentionMaps(heads, maps, peaks, prefix)


def _slice(model: ViT, weights: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Return the maps, peaks and shares of the prefix of one head's attention [n, n]."""
    s = model.settings
    rows = weights[s.num_prefix :]
    match s.pool:
        case ClassToken():
            pooled = weights[:1]
        case FirstPatch():
            pooled = rows[:1]
        case Mean() | AttentionPool():
            pooled = rows.mean(dim=0, keepdim=True)
    queries = torch.cat([pooled, rows]).float().cpu()
    patches = queries[:, s.num_prefix :]
    peaks = patches.amax(dim=1)
    maps = (patches / peaks.clamp(min=1e-30)[:, None] * 255).round().to(torch.uint8)
    return maps.numpy(), peaks.numpy(), queries[:, : s.num_prefix].sum(dim=1).numpy()


def similarity_map(model: Classifier) -> tuple[Grid, bytes]:
    """Return the grid, and the similarity of each position to each other as uint8 [n, n]: 0 stands for -1, 255 for 1.

    Raises:
        CannotShowError: the model has no table of positions.
    """
    refuse(why_no_positions(model))
    maps = position_similarity(model)
    values = ((maps.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Grid(maps.shape[0], maps.shape[1]), values.numpy().tobytes()


def filter_sheet(model: Classifier) -> bytes:
    """Return the first 28 components of the patch filters as one PNG, seven in a row, each scaled to its own range.

    Raises:
        CannotShowError: the model has no filters that read patches of an image.
    """
    refuse(why_no_filters(model))
    components = filter_components(model)
    low = components.min(axis=(1, 2, 3), keepdims=True)
    high = components.max(axis=(1, 2, 3), keepdims=True)
    tiles = ((components - low) / np.maximum(high - low, 1e-12) * 255).round().astype(np.uint8)
    count, height, width, _ = tiles.shape
    scale = max(1, 64 // max(height, width))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    gap, (height, width) = 6, tiles.shape[1:3]
    rows = -(-count // SHEET_COLUMNS)
    sheet = np.zeros((rows * (height + gap) - gap, SHEET_COLUMNS * (width + gap) - gap, 4), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // SHEET_COLUMNS) * (height + gap), (index % SHEET_COLUMNS) * (width + gap)
        sheet[top : top + height, left : left + width] = np.dstack([tile, np.full((height, width), 255, np.uint8)])
    return png(sheet)


def refuse(reason: str | None) -> None:
    """Raise an error where there is a reason for one.

    Raises:
        CannotShowError: there is.
    """
    if reason is not None:
        raise CannotShowError("model", reason)


def as_seen(spec: ImageSpec) -> ImageSpec:
    """Return the preparation that leaves an image alone which has been prepared already: the page sends back what it was given."""
    return spec.model_copy(update={"fit": Squash(), "decoding": "standard"})


def as_input(model: Classifier, prepared: Pixels) -> Tensor:
    """Return one prepared image as a batch in the model's value range, where the model is."""
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(prepared.transpose(2, 0, 1)))[None]
    return model.image_spec.normalise(batch.to(device))


def scaled(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return values from 0 to 1 as 0 to 255."""
    return (heat * 255).round().astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels as the bytes of a PNG, packed quickly rather than tightly."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def text_of(data: bytes) -> str:
    """Return bytes as JSON can hold them: base64."""
    return base64.b64encode(data).decode()


def pooled_name(model: ViT) -> str:
    """Return what the model's answer is made from, for people."""
    match model.settings.pool:
        case ClassToken():
            return "the class token"
        case FirstPatch():
            return "the first patch, which is pooled"
        case Mean() | AttentionPool():
            return "all patches, on average"


def _map_bytes(model: ViT) -> int:
    """Return how many bytes the maps of one head have."""
    cells = model.settings.grid.cells
    return cells * (cells + 1)


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
