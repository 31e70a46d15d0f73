"""Charts of numbers: curves, counts and shares."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitlab.inspection.drawing import BLUE, COLOURS, GREY, ORANGE, Drawing, empty_figure, literal, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 4
"""The most series whose names have room inside a panel."""
Curve = tuple[Sequence[int], Sequence[float]]
"""Steps, and the value at each."""


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
    figure = empty_figure(4.2 * columns, 3.0 * rows)
    for index, (title, series) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for name, (x, y) in series.items():
            again, colour = divmod(names.index(name), len(COLOURS))
            axes.plot(
                x,
                y,
                label=literal(name),
                color=COLOURS[colour],
                linestyle=("-", "--", ":", "-.")[again % 4],
                linewidth=1.6,
                marker="o" if len(x) < 12 else None,
                markersize=3.5,
            )
        axes.set_title(literal(title), fontsize=10)
        axes.set_xlabel(x_label, fontsize=9)
        plain(axes)
        if title in from_zero:
            axes.set_ylim(bottom=0)
        if log:
            axes.set_yscale("log")
            axes.set_xticks(sorted({each for x, _ in series.values() for each in x}))
        if len(series) > 1:
            axes.legend(fontsize=8, frameon=False)
    return Drawing(figure)


class Point(NamedTuple):
    """A result: y at x, its deviation where there are several runs, and a name to stand beside it."""

    x: float
    y: float
    deviation: float | None = None
    name: str = ""


def against(
    panels: Mapping[str, Mapping[str, Sequence[Point]]],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    joined: bool = True,
    shaded: Collection[str] = (),
) -> Drawing:
    """Draw one panel a quantity, three in a row, of points by series, with bars of their deviations; `joined` by lines or not.

    A series has the same colour and marker in all panels. Of joined ones every x of a few has its mark on a
    logarithmic scale. The area between the lowest and the highest of the series `shaded` is filled.
    """
    columns, rows = min(3, len(panels)), -(-len(panels) // 3)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    figure = empty_figure(4.4 * columns + (1.2 if columns == 1 else 0), 3.4 * rows)
    for index, (title, series) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for name, points in series.items():
            _add_series(axes, name, sorted(points), names.index(name), joined)
        _shade(axes, [point for name in shaded for point in series.get(name, ())])
        axes.set_title(literal(title), fontsize=10)
        axes.set_xlabel(x_label, fontsize=9)
        if index % columns == 0:
            axes.set_ylabel(y_label, fontsize=9)
        if places := sorted({point.x for points in series.values() for point in points}):  # nothing has no logarithm
            axes.set_yscale("log" if log_y else "linear")
            axes.set_xscale("log" if log_x else "linear")
            _mark(axes, places if log_x and joined else ())
        plain(axes)
        if len(series) > 1 and len(names) <= FEW and index == 0:
            axes.legend(fontsize=8, frameon=False)
    if len(names) > FEW:
        drawn = {
            name: handle for axes in figure.axes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            drawn.values(), drawn, fontsize=8, frameon=False, loc="outside lower center", ncols=FEW, handlelength=3
        )
    return Drawing(figure)


def _add_series(axes: "Axes", name: str, points: Sequence[Point], number: int, joined: bool) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], "osD^vPX"[number % 7]
    x, y = [point.x for point in points], [point.y for point in points]
    line = ("-", "--", ":")[number // len(COLOURS) % 3] if joined else ""
    axes.errorbar(
        x,
        y,
        yerr=[point.deviation or 0 for point in points],
        label=literal(name),
        color=colour,
        marker=marker,
        markersize=5,
        linestyle=line,
        linewidth=1.5,
        elinewidth=0.8,
        capsize=2,
    )
    for point in points:
        if point.name:
            axes.annotate(
                literal(point.name),
                (point.x, point.y),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )


def _shade(axes: "Axes", points: Sequence[Point]) -> None:
    """Fill what is between the lowest and the highest of `points` at every x."""
    x = sorted({point.x for point in points})
    heights = [[point.y for point in points if point.x == place] for place in x]
    axes.fill_between(x, [min(y) for y in heights], [max(y) for y in heights], color=GREY, alpha=0.2, linewidth=0)


def _mark(axes: "Axes", places: Sequence[float]) -> None:
    """Put a mark at each of a few `places` on a logarithmic scale, whose own would be at powers of ten alone."""
    if 1 < len(places) <= 8:
        axes.set_xticks(places, [f"{place:,.3g}" if place < 1000 else f"{place:,.0f}" for place in places])
        axes.minorticks_off()


def confusion(matrix: NDArray[np.int64], classes: Sequence[str]) -> Drawing:
    """Draw a confusion matrix: rows are true classes, columns predictions, shades the share of the row, numbers the counts."""
    side = min(12.0, 2.2 + 0.42 * len(classes))
    figure = empty_figure(side + 0.6, side)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 30:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
        names = list(map(literal, classes))
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    return Drawing(figure)


def bars(values: Mapping[str, float], label: str) -> Drawing:
    """Draw one horizontal bar a name, the highest on top."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    figure = empty_figure(6.2, 0.8 + 0.26 * len(ordered))
    axes = figure.add_subplot()
    axes.barh([literal(name) for name, _ in ordered], [value for _, value in ordered], color=BLUE, height=0.7)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label, fontsize=9)
    plain(axes)
    return Drawing(figure)


def columns(values: Mapping[str, Mapping[str, Point]], label: str) -> Drawing:
    """Draw the y of a point as a bar, with its deviation, for every group of every series: groups apart, series side by side."""
    groups = list(dict.fromkeys(group for series in values.values() for group in series))
    figure = empty_figure(max(5.6, 1.6 + 1.4 * len(groups)), 4.0)
    axes = figure.add_subplot()
    width = 0.8 / max(1, len(values))
    for number, (name, series) in enumerate(values.items()):
        found = [(groups.index(group), point) for group, point in series.items()]
        if not found:  # its colour in the legend would be another's
            continue
        axes.bar(
            [place + (number - (len(values) - 1) / 2) * width for place, _ in found],
            [point.y for _, point in found],
            width,
            yerr=[point.deviation or 0 for _, point in found],
            label=literal(name),
            color=COLOURS[number % len(COLOURS)],
            error_kw={"elinewidth": 0.8, "capsize": 2},
        )
    axes.set_xticks(range(len(groups)), list(map(literal, groups)), fontsize=9)
    axes.set_xlim(-0.5, max(1, len(groups)) - 0.5)
    axes.set_ylabel(label, fontsize=9)
    plain(axes)
    if any(values.values()):
        figure.legend(fontsize=8, frameon=False, loc="outside lower center")
    return Drawing(figure)


def reliability(
    counts: NDArray[np.int64], confidence: NDArray[np.float64], accuracy: NDArray[np.float64], error: float
) -> Drawing:
    """Draw how often answers are right by how sure the model is of them (Guo et al. 2017, figure 1), and how many there are.

    All three arrays are [bins] of equal width from 0 to 1; a calibrated model's bars end on the diagonal. `error` is the ECE.
    """
    figure = empty_figure(4.6, 5.4)
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
        plain(axes)
    return Drawing(figure)
