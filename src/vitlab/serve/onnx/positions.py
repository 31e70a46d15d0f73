"""Positions as nodes (appendix D.4): constants, or in a graph for any size resized to the grid of the images that come.

Resizing is what `vitlab.load` does for another image size, in float32: bilinear with aligned corners
(`nn.position.resize_table`), and for offsets `nn.relative.resize_offsets`. Bilinear is a product with a matrix along each axis,
whose rows hold the shares of two neighbours.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vitlab.nn.grid import Grid
from vitlab.nn.position import FactoredPosition, LearnedPosition, SinCosPosition
from vitlab.nn.relative import RelativeLogits
from vitlab.serve.onnx.graph import Dim, Graph, Value


@dataclass(frozen=True)
class Layout:
    """The grid of patches that a graph sees, numbers or what a run finds; the grid that its model was `built` for, and how many
    tokens of its own stand before the patches."""

    rows: Dim
    columns: Dim
    built: Grid
    prefix: int

    @property
    def fixed(self) -> bool:
        """Whether the grid is the one that the model was built for."""
        return (self.rows, self.columns) == tuple(self.built)


def prefix_rows(position: nn.Module | None, count: int, width: int) -> torch.Tensor:
    """Return what is added to the `count` tokens before the patches: zero where they have no rows [1, count, d]."""
    rows = torch.zeros(1, count, width)
    if position is not None and count:
        kind = _known(position)
        rows[:, : kind.prefix] = kind.rows_of()[:, : kind.prefix].detach().cpu()
    return rows


def added_rows(g: Graph, position: nn.Module, layout: Layout) -> Value:
    """Return what is added to all tokens: [1, n, d]."""
    patches = patch_rows(g, position, layout)
    if not layout.prefix:
        return patches
    width = _known(position).rows_of().shape[2]
    first = g.parameter(position, "prefix", prefix_rows(position, layout.prefix, width))
    return g.join([first, patches], axis=1)


def patch_rows(g: Graph, position: nn.Module, layout: Layout) -> Value:
    """Return what is added to the patches: [1, rows · columns, d]."""
    kind = _known(position)
    if layout.fixed:
        return g.parameter(position, "patches", kind.rows_of()[:, kind.prefix :])
    match kind:
        case LearnedPosition():
            table = kind.table[0, kind.prefix :]
            tall = g.parameter(position, "table", table.reshape(layout.built.rows, -1))
            tall = g.op("MatMul", shares(g, layout.rows, layout.built.rows), tall)
            tall = g.reshape(tall, layout.rows, layout.built.columns, table.shape[1])
            wide = g.op("MatMul", shares(g, layout.columns, layout.built.columns), tall)
            return g.reshape(wide, 1, -1, table.shape[1])
        case FactoredPosition():
            columns = g.parameter(position, "columns", kind.columns)
            rows = g.parameter(position, "rows", kind.rows)
            columns = g.op("MatMul", shares(g, layout.columns, layout.built.columns), columns)
            rows = g.op("MatMul", shares(g, layout.rows, layout.built.rows), rows)
            return _crossed(g, columns, rows, layout, kind.columns.shape[1])
        case SinCosPosition():
            quarter = kind.width // 4
            exponent = np.arange(quarter) / max(quarter - 1, 1)
            omega = np.exp(-exponent * math.log(kind.temperature)).astype(np.float32)
            name = f"{g.modules[position]}.omega"
            value = name if name in g.weights else g.weight(name, omega)
            return _crossed(g, _waves(g, layout.columns, value), _waves(g, layout.rows, value), layout, 2 * quarter)


def _known(position: nn.Module) -> LearnedPosition | FactoredPosition | SinCosPosition:
    if isinstance(position, LearnedPosition | FactoredPosition | SinCosPosition):
        return position
    raise TypeError(f"no ONNX nodes for {type(position).__name__}")


def _waves(g: Graph, size: Dim, omega: Value) -> Value:
    """Return the sines and cosines of the coordinates below `size`: [size, d/2]."""
    angles = g.op("Mul", g.op("Unsqueeze", g.floats(size), g.ints(1)), omega)
    return g.join([g.op("Sin", angles), g.op("Cos", angles)], axis=1)


def _crossed(g: Graph, columns: Value, rows: Value, layout: Layout, width: int) -> Value:
    """Return [column vector, row vector] for each patch: [1, n, 2 · width]."""
    shape = g.shape(layout.rows, layout.columns, width)
    across = g.op("Expand", g.op("Unsqueeze", columns, g.ints(0)), shape)
    down = g.op("Expand", g.op("Unsqueeze", rows, g.ints(1)), shape)
    return g.reshape(g.join([across, down], axis=2), 1, -1, 2 * width)


def shares(g: Graph, new: Dim, old: int) -> Value:
    """Return the matrix [new, old] that resamples `old` cells linearly to `new`, the outer ones on each other."""
    steps = g.op("Max", g.op("Sub", _float(g, new), g.number(1.0)), g.number(1.0))
    place = g.op("Div", g.op("Mul", g.floats(new), g.number(float(old - 1))), steps)
    place = g.op("Unsqueeze", place, g.ints(1))
    distance = g.op("Abs", g.op("Sub", place, g.floats(old)))
    return g.op("Relu", g.op("Sub", g.number(1.0), distance))


def _float(g: Graph, dim: Dim) -> Value:
    return g.number(float(dim)) if isinstance(dim, int) else g.as_float(dim)


def relative_logits(g: Graph, query: Value, layer: RelativeLogits, layout: Layout) -> Value:
    """Return the extra logits of `query` [b, m, q, e] towards all tokens [b, m, q, n]."""
    if layout.fixed:
        table, tokens = g.parameter(layer, "table", layer.table), layout.built.cells + layout.prefix
        place = np.arange(tokens)
        offsets = f"offsets_{tokens}"
        if offsets not in g.weights:
            g.weight(offsets, (place[:, None] - place[None, :] + tokens - 1))
        last: Dim = tokens
    else:
        table = resized_offsets(g, layer, layout)
        last = g.op("Add", g.op("Mul", _dim(g, layout.rows), _dim(g, layout.columns)), g.ints(layout.prefix))
        place = g.floats(last)
        down, across = g.op("Unsqueeze", place, g.ints(1)), g.op("Unsqueeze", place, g.ints(0))
        reach = g.op("Sub", g.as_float(last), g.number(1.0))
        offsets = g.as_int(g.op("Add", g.op("Sub", down, across), reach))
    by_offset = g.op("MatMul", query, g.transpose(table, 1, 0))
    queries = g.size(by_offset, 2)
    offsets = g.op("Slice", offsets, g.ints(0), queries, g.ints(0))
    full = g.op("Expand", offsets, g.shape(g.op("Shape", by_offset, start=0, end=3), last))
    return g.op("GatherElements", by_offset, full, axis=3)


def _dim(g: Graph, dim: Dim) -> Value:
    return g.ints(dim) if isinstance(dim, int) else dim


def resized_offsets(g: Graph, layer: RelativeLogits, layout: Layout) -> Value:
    """Return the offset table for the grid of a run: [2t - 1, e]; see `nn.relative.resize_offsets`."""
    old, table = layout.built, g.parameter(layer, "table", layer.table)
    reach_old = (layer.table.shape[0] - 1) // 2
    rows, columns = _float(g, layout.rows), _float(g, layout.columns)
    reach = g.op("Add", g.op("Mul", rows, columns), g.number(float(reach_old - old.cells)))
    count = g.as_int(g.op("Add", g.op("Mul", reach, g.number(2.0)), g.number(1.0)))
    offset = g.op("Sub", g.floats(count), reach)
    most = g.op("Sub", rows, g.number(1.0))
    down = g.op("Round", g.op("Div", offset, columns))
    down = g.op("Max", g.op("Min", down, most), g.op("Neg", most))
    across = g.op("Mul", g.op("Sub", offset, g.op("Mul", down, columns)), _step(g, old.columns, columns))
    down = g.op("Mul", down, _step(g, old.rows, rows))
    bound, parts = g.number(float(reach_old)), list[Value]()
    for row, row_share in _neighbours(g, down):
        for column, column_share in _neighbours(g, across):
            index = g.op("Add", g.op("Mul", row, g.number(float(old.columns))), column)
            index = g.op("Add", g.op("Max", g.op("Min", index, bound), g.op("Neg", bound)), bound)
            share = g.op("Unsqueeze", g.op("Mul", row_share, column_share), g.ints(1))
            parts.append(g.op("Mul", g.op("Gather", table, g.as_int(index), axis=0), share))
    return g.op("Sum", *parts)


def _step(g: Graph, old: int, new: Value) -> Value:
    """Return (old - 1) / (new - 1), or 1 where one of them has a single cell."""
    if old == 1:
        return g.number(1.0)
    single = g.op("Equal", new, g.number(1.0))
    steps = g.op("Sub", new, g.number(1.0))
    return g.op("Where", single, g.number(1.0), g.op("Div", g.number(float(old - 1)), steps))


def _neighbours(g: Graph, place: Value) -> list[tuple[Value, Value]]:
    """Return the whole numbers on either side of `place` with their shares."""
    below = g.op("Floor", place)
    share, one = g.op("Sub", place, below), g.number(1.0)
    return [(below, g.op("Sub", one, share)), (g.op("Add", below, one), share)]
