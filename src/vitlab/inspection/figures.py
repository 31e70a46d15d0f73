"""The one place that draws: every function takes arrays and returns a drawing that can be saved or set into a page."""

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vitlab.data.batch import collate
from vitlab.data.image import Picture
from vitlab.data.source import Pixels
from vitlab.errors import WeightsError
from vitlab.inspection import attention
from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViT
from vitlab.nn.grid import Size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[Sequence[int], Sequence[float]]
"""Steps, and the value at each."""
DPI = 110
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # told apart by colour-blind readers
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Drawing:
    """A finished matplotlib figure."""

    figure: "Figure"

    def save(self, path: str | Path) -> None:
        """Write the figure to `path` in the format that its suffix names: .png, .svg, .pdf."""
        self.figure.savefig(path, dpi=DPI)

    def svg(self) -> str:
        """Return the figure as SVG text, the same for the same figure."""
        import matplotlib as mpl

        buffer = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "vitlab", "svg.fonttype": "path"}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        return text[text.index("<svg") :]


def curves(
    panels: Mapping[str, Mapping[str, Curve]],
    x_label: str = "step",
    from_zero: Collection[str] = (),
    log: bool = False,
) -> Drawing:
    """Draw one panel a quantity, three in a row, one line a series of (x, y), which has the same colour in all panels.

    The scale of the panels `from_zero` begins there. With `log` the values have a logarithmic scale, and every x has its mark.
    """
    columns, rows = min(3, len(panels)), -(-len(panels) // 3)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    figure = _figure(4.2 * columns, 3.0 * rows)
    for index, (title, series) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for name, (x, y) in series.items():
            again, colour = divmod(names.index(name), len(COLOURS))
            axes.plot(
                x,
                y,
                label=name,
                color=COLOURS[colour],
                linestyle=("-", "--", ":", "-.")[again % 4],
                linewidth=1.6,
                marker="o" if len(x) < 12 else None,
                markersize=3.5,
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x_label, fontsize=9)
        _plain(axes)
        if title in from_zero:
            axes.set_ylim(bottom=0)
        if log:
            axes.set_yscale("log")
            axes.set_xticks(sorted({each for x, _ in series.values() for each in x}))
        if len(series) > 1:
            axes.legend(fontsize=8, frameon=False)
    return Drawing(figure)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str]) -> Drawing:
    """Draw a confusion matrix: rows are true classes, columns predictions, shades the share of the row, numbers the counts."""
    side = min(12.0, 2.2 + 0.42 * len(classes))
    figure = _figure(side + 0.6, side)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 30:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
        axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    return Drawing(figure)


def filters(components: NDArray[np.float32]) -> Drawing:
    """Draw patch filters [n, height, width, 3] in rows of seven, each scaled to its own range (figure 7, left)."""
    low = components.min(axis=(1, 2, 3), keepdims=True)
    high = components.max(axis=(1, 2, 3), keepdims=True)
    return _tiles(list((components - low) / np.maximum(high - low, 1e-12)), columns=7)


def similarity(maps: NDArray[np.float32]) -> Drawing:
    """Draw position similarities [rows, columns, rows, columns] as maps on one scale from -1 to 1 (figure 7, centre)."""
    rows, columns = maps.shape[:2]
    figure = _figure(0.75 * columns + 1.2, 0.75 * rows + 0.4)
    image = None
    for row in range(rows):
        for column in range(columns):
            axes = figure.add_subplot(rows, columns, row * columns + column + 1)
            image = axes.imshow(maps[row, column], cmap="viridis", vmin=-1, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == rows - 1:
                axes.set_xlabel(str(column + 1), fontsize=8)
            if column == 0:
                axes.set_ylabel(str(row + 1), fontsize=8, rotation=0, labelpad=8, va="center")
    figure.supxlabel("input patch column", fontsize=9)
    figure.supylabel("input patch row", fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=figure.axes, shrink=0.8, label="cosine similarity")
    return Drawing(figure)


def overlay(image: Pixels, heat: NDArray[np.float32], patch: Size) -> Pixels:
    """Return `image` (uint8 [h, w, 3]) darkened where `heat` [rows, columns] is low: how the paper shows rollout (figure 6).

    The map is enlarged with Lanczos, blurred by a patch, stretched to 0–1 and used as opacity over black.
    """
    peak = Image.fromarray((heat / max(float(heat.max()), 1e-12) * 255).astype(np.uint8))
    mask = peak.resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS)
    mask = np.asarray(mask.filter(ImageFilter.GaussianBlur(max(patch))), np.float32)
    mask = (mask - mask.min()) / max(float(mask.max() - mask.min()), 1e-12)
    return (image * mask[:, :, None]).astype(np.uint8)


def rollout(model: Classifier, image: str | Path | Pixels) -> Drawing:
    """Draw `image` (a path, or uint8 [h, w, 3]) beside what `model` looks at in it (figures 6 and 14)."""
    if not attention.attends_globally(model):
        raise WeightsError("model", "has no attention between all of its patches", "rollout needs a ViT with that")
    opened = model.image_spec.open(Path(image).read_bytes(), str(image)) if isinstance(image, str | Path) else image
    prepared, shown = rollout_overlay(model, opened)
    return rollouts([prepared], [shown], [""])


def rollout_overlay(model: ViT, image: Picture) -> tuple[Pixels, Pixels]:
    """Return what `model` sees of `image`, and the same darkened where it does not look: uint8 [height, width, 3] each."""
    spec = model.image_spec
    prepared = spec.prepare(image)
    device = next(model.parameters()).device
    batch = collate([prepared], [0], [""], 1).images.to(device)
    heat = attention.rollout(model, spec.normalise(batch))[0].cpu().numpy()
    return prepared, overlay(prepared, heat, model.settings.stem.cell)


def rollouts(images: Sequence[Pixels], overlays: Sequence[Pixels], titles: Sequence[str]) -> Drawing:
    """Draw each image beside what the model looks at in it."""
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure = _figure(2.9 * columns, 1.75 * rows)
    for index, (image, shown, title) in enumerate(zip(images, overlays, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(
            np.hstack([image, np.full((image.shape[0], max(1, image.shape[1] // 16), 3), 255, np.uint8), shown])
        )
        axes.set_title(title, fontsize=8)
        axes.axis("off")
    return Drawing(figure)


def pictures(images: Sequence[Pixels]) -> Drawing:
    """Draw images (uint8 [h, w, 3]) in rows of seven."""
    return _tiles(images, columns=7)


def bars(values: Mapping[str, float], label: str) -> Drawing:
    """Draw one horizontal bar a name, the highest on top."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    figure = _figure(6.2, 0.8 + 0.26 * len(ordered))
    axes = figure.add_subplot()
    axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=BLUE, height=0.7)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label, fontsize=9)
    _plain(axes)
    return Drawing(figure)


def reliability(
    counts: NDArray[np.int64], confidence: NDArray[np.float64], accuracy: NDArray[np.float64], error: float
) -> Drawing:
    """Draw how often answers are right by how sure the model is of them (Guo et al. 2017, figure 1), and how many there are.

    All three arrays are [bins] of equal width from 0 to 1; a calibrated model's bars end on the diagonal. `error` is the ECE.
    """
    figure = _figure(4.6, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width, filled = 1 / len(counts), counts > 0
    left = np.arange(len(counts)) * width
    upper.bar(left[filled], accuracy[filled], width, align="edge", color=BLUE, edgecolor="white", label="right")
    gap = (confidence - accuracy)[filled]
    hatched = {"fill": False, "hatch": "////", "edgecolor": ORANGE, "label": "from there to how sure it is"}
    upper.bar(left[filled], gap, width, bottom=accuracy[filled], align="edge", **hatched)
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    upper.set_ylabel("share that is right", fontsize=9)
    upper.set_title(f"expected calibration error {100 * error:.2f} %", fontsize=10)
    lower.bar(left, counts / counts.sum(), width, align="edge", color=GREY, edgecolor="white")
    lower.set_ylabel("share of images", fontsize=9)
    lower.set_xlabel("how sure the model is of its answer", fontsize=9)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    for axes in (upper, lower):
        _plain(axes)
    return Drawing(figure)


def to_data_uri(image: Pixels, side: int = 256) -> str:
    """Return pixels (uint8 [h, w, 3]) as a data URI of about `side` pixels: small ones enlarged by whole factors, as PNG."""
    longest = max(image.shape[:2])
    buffer = io.BytesIO()
    if longest <= side:
        factor = side // longest
        Image.fromarray(np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)).save(buffer, "PNG")
        kind = "png"
    else:
        picture = Image.fromarray(image)
        picture.thumbnail((side, side))
        picture.save(buffer, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _tiles(images: Sequence[NDArray[np.float32] | Pixels], columns: int) -> Drawing:
    rows = -(-len(images) // columns)
    figure = _figure(0.85 * columns, 0.85 * rows)
    for index, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(image)
        axes.axis("off")
    return Drawing(figure)


def _figure(width: float, height: float) -> "Figure":
    """Return an empty figure that belongs to no window and no global list."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.5)
