"""Attention of every patch in few bytes, for a page: one byte a weight, and larger cells where there are too many."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vitlab.nn.grid import Grid


@dataclass(frozen=True)
class Cells:
    """The grids on which attention is kept: how many patches, down and across, one cell of the queries and of the keys covers."""

    grid: Grid
    query: int = 1
    key: int = 1

    @property
    def queries(self) -> Grid:
        """Rows and columns of cells that look."""
        return coarser(self.grid, self.query)

    @property
    def keys(self) -> Grid:
        """Rows and columns of cells that are looked at."""
        return coarser(self.grid, self.key)

    @property
    def size(self) -> int:
        """How many weights there are."""
        return self.queries.cells * self.keys.cells


def coarser(grid: Grid, factor: int) -> Grid:
    """Return the grid whose cells are `factor`×`factor` cells of `grid`; those at the right and bottom may be smaller."""
    return Grid(math.ceil(grid.rows / factor), math.ceil(grid.columns / factor))


def cells_within(grid: Grid, weights: int) -> Cells:
    """Return the finest cells with at most so many `weights`, where that can be; what looks becomes coarser first."""
    cells = Cells(grid)
    while cells.size > weights and cells.keys.cells > 1:
        cells = Cells(grid, cells.query + (cells.query == cells.key), cells.key + (cells.query > cells.key))
    return cells


@dataclass(frozen=True)
class Packed:
    """Attention as bytes: a weight is `values` [..., q, k] / 255 times the `peaks` [..., q] of its query."""

    values: NDArray[np.uint8]
    peaks: NDArray[np.float32]


def pack(weights: Float[Tensor, "m n n"], cells: Cells) -> Packed:
    """Return attention between patches (class token and registers left out) on `cells`.

    A cell looks as its patches do on average, and is looked at as much as its patches together, so that a row keeps its sum. A
    byte is a 255th of the row's largest weight.
    """
    looks = membership(cells.grid, cells.query).to(weights)
    seen = membership(cells.grid, cells.key).to(weights)
    if cells.key > 1:
        weights = weights @ seen.T
    if cells.query > 1:
        weights = (looks / looks.sum(dim=1, keepdim=True)) @ weights
    peaks = weights.amax(dim=-1)
    values = (weights / peaks.clamp_min(1e-30)[..., None] * 255).round().to(torch.uint8)
    return Packed(values.cpu().numpy(), peaks.float().cpu().numpy())


def membership(grid: Grid, factor: int) -> Float[Tensor, "coarse n"]:
    """Return which patches of `grid` each cell of `factor`×`factor` covers, as ones and zeros."""
    across = coarser(grid, factor).columns
    rows = torch.arange(grid.rows).repeat_interleave(grid.columns) // factor
    columns = torch.arange(grid.columns).repeat(grid.rows) // factor
    return torch.nn.functional.one_hot(rows * across + columns, coarser(grid, factor).cells).T.float()
