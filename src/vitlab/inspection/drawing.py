"""Drawing: a finished figure, and what all figures are made with."""

import base64
import io
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitlab.data.source import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"  # told apart by colour-blind readers
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Drawing:
    """A finished matplotlib figure."""

    figure: "Figure"

    def save(self, path: str | Path) -> None:
        """Write the figure to `path` in the format that its suffix names: .png, .svg, .pdf."""
        with _any_letters():
            self.figure.savefig(path, dpi=DPI)

    def svg(self) -> str:
        """Return the figure as SVG text, the same for the same figure."""
        import matplotlib as mpl

        buffer = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "vitlab", "svg.fonttype": "path"}), _any_letters():
            self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        return text[text.index("<svg") :]


@contextmanager
def _any_letters() -> Generator[None]:
    """Draw a box for a letter that the font has not, as of Chinese or Arabic, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        warnings.filterwarnings("ignore", r"Matplotlib currently does not support", UserWarning)
        yield


def literal(name: str) -> str:
    """Return a name that stands in a figure as it is: no formula between dollars, and no "_" that hides it from a legend."""
    return (" " * name.startswith("_") + name).replace("$", r"\$")


def tiles(images: Sequence[NDArray[np.float32] | Pixels], columns: int) -> Drawing:
    """Draw images (uint8, or floats from 0 to 1: [h, w, 3]) in rows of so many."""
    rows = -(-len(images) // columns)
    figure = empty_figure(0.85 * columns, 0.85 * rows)
    for index, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(image)
        axes.axis("off")
    return Drawing(figure)


def empty_figure(width: float, height: float) -> "Figure":
    """Return an empty figure that belongs to no window and no global list."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def plain(axes: "Axes") -> None:
    """Leave out what a curve does not need: two of four spines, heavy grids."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.5)


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
