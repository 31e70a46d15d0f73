"""What a model learned and where it looks, drawn: of a model and an image, or of the arrays that `inspection` returns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from vitlab.data.batch import collate
from vitlab.data.image import Picture
from vitlab.data.source import Pixels
from vitlab.errors import DataError, WeightsError
from vitlab.inspection.attention import attends_globally, attention_from
from vitlab.inspection.attention import rollout as rollout_of
from vitlab.inspection.distance import attention_distance, even_distance
from vitlab.inspection.drawing import BLUE, COLOURS, GREY, ORANGE, Drawing, empty_figure, literal, plain, tiles
from vitlab.inspection.lens import logit_lens, settled_at
from vitlab.inspection.relevance import relevance as relevance_of
from vitlab.models.classifier import Classifier, probabilities_of
from vitlab.models.vit import ViT
from vitlab.nn.grid import Size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Drawable = str | Path | Pixels
"""An image: the path of a file, or pixels (uint8 [h, w, 3])."""
SHOWN_CLASSES = 3


def rollout(model: Classifier, image: Drawable) -> Drawing:
    """Draw `image` beside what `model` looks at in it (figures 6 and 14).

    Raises:
        WeightsError: the model has no attention between all of its patches.
        ImageError: the image cannot be decoded, or must not be.
    """
    prepared, shown = rollout_overlay(attending(model), open_drawable(model, image))
    return rollouts([prepared], [shown], [""])


def attention(model: Classifier, image: Drawable, patch: tuple[int, int] | None = None) -> Drawing:
    """Draw where each head of each layer looks in `image`: the output, or one `patch` (its row and column, from 0).

    Raises:
        WeightsError: the model has no attention between all of its patches.
        ImageError: the image cannot be decoded, or must not be.
        ValueError: there is no such patch.
    """
    model = attending(model)
    _, images = prepare(model, open_drawable(model, image))
    return attention_grid(attention_from(model, images, patch)[0].cpu().numpy())


def relevance(model: Classifier, image: Drawable, classes: Sequence[int] | None = None) -> Drawing:
    """Draw `image` beside the patches that spoke for each of `classes`, by default the three most probable ones.

    Raises:
        WeightsError: the model has no attention between all of its patches, or no head.
        ImageError: the image cannot be decoded, or must not be.
        ValueError: the model has no such class.
    """
    model = attending(model)
    check_head(model)
    prepared, images = prepare(model, open_drawable(model, image))
    with torch.inference_mode():
        shares = probabilities_of(model, model.eval()(images))[0]
    chosen = shares.topk(min(SHOWN_CLASSES, len(shares))).indices.tolist() if classes is None else list(classes)
    heats = relevance_of(model, images, chosen).cpu().numpy()
    shown = [overlay(prepared, heat, model.settings.stem.cell) for heat in heats]
    titles = [f"{name_of(model, number)} {100 * shares[number]:.1f} %" for number in chosen]
    return rollouts([prepared] * len(shown), shown, titles)


def distance(model: Classifier, images: Sequence[Drawable]) -> Drawing:
    """Draw how far each head looks, by depth, as a mean over `images` (figures 7, right, and 11; the paper takes 128).

    Raises:
        WeightsError: the model has no attention between all of its patches.
        DataError: there are no images, or one cannot be decoded.
    """
    model = attending(model)
    if not images:
        raise DataError("images", "are none", "give one or more")
    found = [attention_distance(model, prepare(model, open_drawable(model, image))[1]) for image in images]
    return distances(torch.cat(found).mean(dim=0).cpu().numpy(), even_distance(model))


def lens(model: Classifier, image: Drawable) -> Drawing:
    """Draw which class leads after every layer, and how probable the leaders of any layer are there (the logit lens).

    Raises:
        WeightsError: the model is no ViT, or has no head.
        ImageError: the image cannot be decoded, or must not be.
    """
    check_head(model)
    if not isinstance(model, ViT):
        raise WeightsError("model", "is a ResNet: its head fits the output of no other layer", "use a ViT")
    logits = logit_lens(model, prepare(model, open_drawable(model, image))[1])[:, 0]
    shares = probabilities_of(model, logits).cpu().numpy()
    return lens_curves(shares, [name_of(model, number) for number in range(shares.shape[1])], settled_at(logits))


def attending(model: Classifier) -> ViT:
    """Return `model`, which has attention between all of its patches.

    Raises:
        WeightsError: it has not.
    """
    if not attends_globally(model):
        raise WeightsError(
            "model", "has no attention between all of its patches", "this needs a ViT or hybrid that has"
        )
    return model


def check_head(model: Classifier) -> None:
    """Refuse a model without classes.

    Raises:
        WeightsError: it has none.
    """
    if not model.settings.num_classes:
        raise WeightsError("model", "has no head", "fine-tune it first")


def name_of(model: Classifier, number: int) -> str:
    """Return the name of a class, its number where the weights name none."""
    return model.classes[number] if model.classes else str(number)


def open_drawable(model: Classifier, image: Drawable) -> Picture:
    """Return an image that is to be drawn.

    Raises:
        DataError: the path cannot be read.
        ImageError: the image cannot be decoded, or must not be.
    """
    if not isinstance(image, str | Path):
        return image
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        raise DataError(image, f"cannot be read ({error.strerror})", "check the path") from None
    return model.image_spec.open(data, str(image))


def prepare(model: Classifier, image: Picture) -> tuple[Pixels, Float[Tensor, "1 c h w"]]:
    """Return what `model` sees of `image`: uint8 [height, width, 3], and as its input, on its device."""
    prepared = model.image_spec.prepare(image)
    return prepared, as_input(model, prepared)


def as_input(model: Classifier, prepared: Pixels) -> Float[Tensor, "1 c h w"]:
    """Return an image that is prepared (uint8 [height, width, 3]) as the input of `model`, on its device."""
    batch = collate([prepared], [0], [""], 1).images.to(next(model.parameters()).device)
    return model.image_spec.normalise(batch)


def rollout_overlay(model: ViT, image: Picture) -> tuple[Pixels, Pixels]:
    """Return what `model` sees of `image`, and the same darkened where it does not look: uint8 [height, width, 3] each."""
    prepared, images = prepare(model, image)
    return prepared, overlay(prepared, rollout_of(model, images)[0].cpu().numpy(), model.settings.stem.cell)


def overlay(image: Pixels, heat: NDArray[np.float32], patch: Size) -> Pixels:
    """Return `image` (uint8 [h, w, 3]) darkened where `heat` [rows, columns] is low: how the paper shows rollout (figure 6).

    The map is enlarged with Lanczos, blurred by a patch, stretched to 0–1 and used as opacity over black.
    """
    peak = Image.fromarray((heat / max(float(heat.max()), 1e-12) * 255).astype(np.uint8))
    mask = peak.resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS)
    mask = np.asarray(mask.filter(ImageFilter.GaussianBlur(max(patch))), np.float32)
    mask = (mask - mask.min()) / max(float(mask.max() - mask.min()), 1e-12)
    return (image * mask[:, :, None]).astype(np.uint8)


def rollouts(images: Sequence[Pixels], overlays: Sequence[Pixels], titles: Sequence[str]) -> Drawing:
    """Draw each image beside what the model looks at in it."""
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure = empty_figure(2.9 * columns, 1.75 * rows)
    for index, (image, shown, title) in enumerate(zip(images, overlays, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(
            np.hstack([image, np.full((image.shape[0], max(1, image.shape[1] // 16), 3), 255, np.uint8), shown])
        )
        axes.set_title(literal(title), fontsize=8)
        axes.axis("off")
    return Drawing(figure)


def attention_grid(maps: NDArray[np.float32]) -> Drawing:
    """Draw attention [layers, heads, rows, columns], a row a layer from the first up; each map is scaled to its own peak."""
    layers, heads, rows, columns = maps.shape
    peaks = np.maximum(maps.max(axis=(2, 3), keepdims=True), 1e-12)
    width = min(14.0, 1.2 + 0.62 * heads)
    figure = empty_figure(width, 0.6 + (width - 0.9) * layers * rows / (heads * columns))
    axes = figure.add_subplot()
    _mosaic(axes, maps / peaks, 0.0, 1.0)
    axes.set_xlabel("head", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    return Drawing(figure)


def distances(pixels: NDArray[np.float32], even: float) -> Drawing:
    """Draw mean attention distances [layers, heads] by depth, a dot a head, and the mean of each layer (figure 7, right).

    A line marks the distance of `even` attention.
    """
    return distances_beside({"": (pixels, even)})


def distances_beside(networks: Mapping[str, tuple[NDArray[np.float32], float]]) -> Drawing:
    """Draw the attention distances of several networks beside each other on one scale (figure 11), each as `distances` does."""
    from matplotlib.ticker import MaxNLocator

    figure = empty_figure(max(5.4, 4.4 * len(networks)), 3.6)
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for axes, (title, (pixels, even)) in zip(panels, networks.items(), strict=True):
        layers, heads = pixels.shape
        depth = np.arange(1, layers + 1)
        axes.plot(depth, pixels.mean(axis=1), color=GREY, linewidth=1.2, label="mean of the heads")
        axes.scatter(
            np.repeat(depth, heads), pixels.ravel(), s=14, color=BLUE, alpha=0.75, linewidths=0, label="a head"
        )
        axes.axhline(even, color=ORANGE, linestyle="--", linewidth=1, label="attention to all alike")
        axes.set_title(literal(title), fontsize=10)
        axes.set_xlabel("layer", fontsize=9)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    panels[0].set_ylabel("mean attention distance, pixels", fontsize=9)
    panels[0].legend(fontsize=8, frameon=False)
    return Drawing(figure)


def lens_curves(shares: NDArray[np.float32], classes: Sequence[str], settled: int) -> Drawing:
    """Draw the probabilities [layers + 1, k] that the head gives after every layer, of the classes that lead in any of them.

    The last one's leader is drawn first and thick, then those that lead most often, six at most; a line marks the layer `settled`.
    """
    leaders, often = np.unique(shares.argmax(axis=1), return_counts=True)
    answer = int(shares[-1].argmax())
    order = [answer, *(int(leaders[i]) for i in np.argsort(-often, kind="stable") if leaders[i] != answer)]
    from matplotlib.ticker import MaxNLocator

    figure = empty_figure(5.4, 3.2)
    axes = figure.add_subplot()
    axes.axvline(settled, color=GREY, linestyle=":", linewidth=1)
    for number, colour in zip(order, (ORANGE, *(colour for colour in COLOURS if colour != ORANGE)), strict=False):
        wide = number == answer
        label = literal(classes[number][:40])
        axes.plot(
            shares[:, number], color=colour, linewidth=2.2 if wide else 1.2, marker="o", markersize=3, label=label
        )
    axes.set_xlabel("after layer", fontsize=9)
    axes.set_ylabel("probability", fontsize=9)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False)
    plain(axes)
    return Drawing(figure)


def filters(components: NDArray[np.float32]) -> Drawing:
    """Draw patch filters [n, height, width, 3] in rows of seven, each scaled to its own range (figure 7, left)."""
    low = components.min(axis=(1, 2, 3), keepdims=True)
    high = components.max(axis=(1, 2, 3), keepdims=True)
    shown = (components - low) / np.maximum(high - low, 1e-12)
    count, height, width, _ = shown.shape
    sheet = np.ones((-(-count // 7) * 7, height, width, 3), np.float32)  # white where the last row has no more
    sheet[:count] = shown
    figure = empty_figure(6.0, 6.0 * len(sheet) * height / (49 * width))
    axes = figure.add_subplot()
    _mosaic(axes, sheet.reshape(-1, 7, height, width, 3), 0.0, 1.0)
    axes.axis("off")
    return Drawing(figure)


def similarity(maps: NDArray[np.floating]) -> Drawing:
    """Draw position similarities [rows, columns, rows, columns] as maps on one scale from -1 to 1 (figure 7, centre)."""
    return similarities({"": maps})


def similarities(trainings: Mapping[str, NDArray[np.floating]]) -> Drawing:
    """Draw the position similarities of several trainings beside each other (figure 10), each as `similarity` does."""
    rows, columns = next(iter(trainings.values())).shape[:2]
    scale = min(0.75, 14.0 / max(rows, len(trainings) * columns))
    figure = empty_figure(scale * columns * len(trainings) + 1.6, scale * rows + 0.6)
    panels = figure.subplots(1, len(trainings), squeeze=False)[0]
    for axes, (title, maps) in zip(panels, trainings.items(), strict=True):
        _mosaic(axes, maps, -1.0, 1.0)
        axes.set_title(literal(title), fontsize=10)
        axes.set_xlabel("input patch column", fontsize=9)
    panels[0].set_ylabel("input patch row", fontsize=9)
    figure.colorbar(panels[-1].images[0], ax=panels, shrink=0.8, label="cosine similarity")
    return Drawing(figure)


def pictures(images: Sequence[Pixels]) -> Drawing:
    """Draw images (uint8 [h, w, 3]) in rows of seven."""
    return tiles(images, columns=7)


def neighbours(image: Pixels, found: Sequence[Pixels], titles: Sequence[str]) -> Drawing:
    """Draw `image` and those nearest to it, each under its title; the first title is of the image itself."""
    figure = empty_figure(1.5 * (len(found) + 1), 1.8)
    for place, (shown, title) in enumerate(zip((image, *found), titles, strict=True)):
        axes = figure.add_subplot(1, len(found) + 1, place + 1)
        axes.imshow(shown)
        axes.set_title(literal(title[:24]), fontsize=8)
        axes.axis("off")
    return Drawing(figure)


def _mosaic(axes: "Axes", maps: NDArray[np.floating], low: float, high: float) -> None:
    """Draw maps [rows, columns, r, c], or [rows, columns, r, c, 3] in colours, as one image with gaps."""
    down, across, rows, columns = maps.shape[:4]
    gap = max(1, round(max(rows, columns) / 12))
    empty = np.nan if maps.ndim == 4 else 1.0
    sheet = np.full((down * (rows + gap) - gap, across * (columns + gap) - gap, *maps.shape[4:]), empty, np.float32)
    for row, column in np.ndindex(down, across):
        top, left = row * (rows + gap), column * (columns + gap)
        sheet[top : top + rows, left : left + columns] = maps[row, column]
    axes.imshow(sheet, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    every = max(1, -(-max(down, across) // 24))
    for set_ticks, count, size in ((axes.set_yticks, down, rows), (axes.set_xticks, across, columns)):
        numbers = range(0, count, every)
        set_ticks([n * (size + gap) + (size - 1) / 2 for n in numbers], [str(n + 1) for n in numbers], fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
