"""Looking: what a model sees in one image and what it learned, as the few bytes that the web page draws."""

import base64
import io
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitlab.data.preprocess import ImageSpec, Squash
from vitlab.data.source import Pixels
from vitlab.errors import RequestError
from vitlab.inspection.attention import attends_globally, attention_by_layer, readout, rollout
from vitlab.inspection.embeddings import filter_components, position_similarity
from vitlab.inspection.lens import logit_lens, settled_at
from vitlab.inspection.relevance import relevance
from vitlab.models.classifier import Classifier, to_probabilities
from vitlab.models.vit import ViT
from vitlab.nn.grid import Grid
from vitlab.serve.abilities import Json, map_bytes, why_no_attention, why_no_filters, why_no_lens, why_no_positions
from vitlab.serve.predict import Predictor

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


def look(predictor: Predictor, prepared: Pixels, count: int = 5) -> Json:
    """Return the `count` most probable classes, the image as the model sees it (PNG), and its rollout where there is one."""
    shares = predictor.answer([prepared])[0].probabilities
    heat = None
    if why_no_attention(predictor.inside) is None:
        model = _global(predictor.inside)
        heat = scaled(rollout(model, as_input(model, prepared))[0].cpu().numpy())
    return {
        "top": [
            {"name": predictor.classes[int(each)], "probability": float(shares[each]), "number": int(each)}
            for each in np.argsort(-shares, kind="stable")[:count]
        ],
        "prepared": text_of(png(prepared)),
        "rollout": None if heat is None else text_of(heat.tobytes()),
    }


def attention_maps(predictor: Predictor, prepared: Pixels, layer: int, head: int = MEAN) -> AttentionMaps:
    """Return the attention of `layer` (from 0): of all heads and their mean where that is small, else of `head` and the mean.

    Raises:
        CannotShowError: the model has no such maps, no such layer or no such head.
    """
    refuse(why_no_attention(predictor.inside))
    model = _global(predictor.inside)
    s = model.settings
    if not 0 <= layer < s.depth:
        raise CannotShowError("layer", f"there is no layer {layer}", f"give 0 to {s.depth - 1}")
    if not MEAN <= head < s.num_heads:
        raise CannotShowError(
            "head", f"there is no head {head}", f"give 0 to {s.num_heads - 1}, or {MEAN} for the mean"
        )
    every = (1 + s.num_heads) * map_bytes(model) <= ALL_HEADS_BYTES
    heads = tuple(range(MEAN, s.num_heads)) if every else tuple(sorted({MEAN, head}))
    weights = next(islice(attention_by_layer(model, as_input(model, prepared)), layer, None))[0]
    slices = [_slice(model, weights.mean(dim=0) if each == MEAN else weights[each]) for each in heads]
    maps, peaks, prefix = (np.stack(part) for part in zip(*slices, strict=True))
    return AttentionMaps(heads, maps, peaks, prefix)


def _slice(model: ViT, weights: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Return the maps, peaks and shares of the prefix of one head's attention [n, n]."""
    prefix = model.settings.num_prefix
    queries = torch.cat([(readout(model) @ weights)[None], weights[prefix:]]).float().cpu()
    patches = queries[:, prefix:]
    peaks = patches.amax(dim=1)
    maps = (patches / peaks.clamp(min=1e-30)[:, None] * 255).round().to(torch.uint8)
    return maps.numpy(), peaks.numpy(), queries[:, :prefix].sum(dim=1).numpy()


def relevance_map(predictor: Predictor, prepared: Pixels, number: int) -> bytes:
    """Return how much each patch spoke for the class `number` as uint8 [n], 255 where it did most.

    Raises:
        CannotShowError: the model has no such maps, or no such class.
    """
    refuse(why_no_attention(predictor.inside))
    model = _global(predictor.inside)
    if not 0 <= number < len(predictor.classes):
        raise CannotShowError("class", f"there is no class {number}; give 0 to {len(predictor.classes) - 1}")
    heat = relevance(model, as_input(model, prepared), [number])[0].cpu()
    return scaled((heat / heat.max().clamp(min=1e-30)).numpy()).tobytes()


def answers_by_depth(predictor: Predictor, prepared: Pixels) -> Json:
    """Return the class that leads, and its probability, before the first layer and after each.

    From the layer `settled` on it does not change any more.

    Raises:
        CannotShowError: the model has no layers to read.
    """
    model = predictor.inside
    refuse(why_no_lens(model))
    if not isinstance(model, ViT):
        raise TypeError("what is no ViT has been refused")
    logits = logit_lens(model, as_input(model, prepared))[:, 0].cpu()
    shares = to_probabilities(logits, predictor.probabilities)
    leaders = shares.argmax(dim=1).tolist()
    steps = [
        {"name": predictor.classes[each], "probability": float(row[each])}
        for each, row in zip(leaders, shares, strict=True)
    ]
    return {"layers": steps, "settled": settled_at(logits)}


def similarity_map(model: Classifier | None) -> tuple[Grid, bytes]:
    """Return the grid, and the similarity of each position to each other as uint8 [n, n]: 0 stands for -1, 255 for 1.

    Raises:
        CannotShowError: the model has no table of positions.
    """
    refuse(why_no_positions(model))
    maps = position_similarity(_there(model))
    values = ((maps.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Grid(maps.shape[0], maps.shape[1]), values.numpy().tobytes()


def filter_sheet(model: Classifier | None) -> bytes:
    """Return the first 28 components of the patch filters as one PNG, seven in a row, each scaled to its own range.

    Raises:
        CannotShowError: the model has no filters that read patches of an image.
    """
    refuse(why_no_filters(model))
    components = filter_components(_there(model))
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


def _global(model: Classifier | None) -> ViT:
    """Return a model of which `why_no_attention` has found nothing against it."""
    if model is None or not attends_globally(model):
        raise TypeError("a model that attends otherwise has been refused")
    return model


def _there(model: Classifier | None) -> Classifier:
    """Return a model of which has been found that it can be looked into."""
    if model is None:
        raise TypeError("a graph has been refused")
    return model


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
