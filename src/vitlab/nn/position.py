"""Position embeddings (appendix D.4); each kind can resize itself to another grid, or says why it need not be."""

import math
from functools import cached_property
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.nn.grid import Grid
from vitlab.nn.relative import resize_offsets

Place = Literal["stem", "layers", "shared"]
"""Where positions are added: once after the stem, in every layer by a table of its own, or in every layer by the same table."""


class NoPosition(Settings):
    """No positions: the patches are a bag. There is nothing to resize."""

    type: Literal["NoPosition"] = "NoPosition"
    place: ClassVar[None] = None

    def build(self, grid: Grid, prefix: int, width: int) -> "AddedPosition | None":
        """Return the module that adds positions to `prefix` class tokens and the patches, None where nothing is added."""
        del grid, prefix, width
        return None


class Learned1D(Settings):
    """One learned vector for each token of the raster sequence, the class token's own row first (the paper's default).

    `class_token=False` gives a class token none: only patches have positions (timm's no_embed_class, big_vision).
    """

    type: Literal["Learned1D"] = "Learned1D"
    place: Place = "stem"
    class_token: bool = True

    def build(self, grid: Grid, prefix: int, width: int) -> "AddedPosition | None":
        """Return the module that adds positions to `prefix` class tokens and the patches, None where nothing is added."""
        return LearnedPosition(grid, prefix if self.class_token else 0, width)


class Learned2D(Settings):
    """A learned vector of half the width for each column and for each row; a patch has those of its coordinates, side by side.

    The class token has a vector of its own, of the whole width: the paper does not say.
    """

    type: Literal["Learned2D"] = "Learned2D"
    place: Place = "stem"

    def build(self, grid: Grid, prefix: int, width: int) -> "AddedPosition | None":
        """Return the module that adds positions to `prefix` class tokens and the patches, None where nothing is added."""
        return FactoredPosition(grid, prefix, width)


class Relative(Settings):
    """Learned vectors for the offsets between tokens, as extra logits of the attention in every layer; nothing is added."""

    type: Literal["Relative"] = "Relative"
    place: ClassVar[None] = None

    def build(self, grid: Grid, prefix: int, width: int) -> "AddedPosition | None":
        """Return the module that adds positions to `prefix` class tokens and the patches, None where nothing is added."""
        del grid, prefix, width
        return None


class SinCos2D(Settings):
    """Fixed sines and cosines of the column and of the row; the class token has none. Computed for any grid: nothing to resize.

    From MoCo v3, as big_vision has it: angles x · ω with ω = temperature^(-i / (d/4 - 1)), side by side
    [sin x, cos x, sin y, cos y].
    """

    type: Literal["SinCos2D"] = "SinCos2D"
    place: ClassVar[Place] = "stem"
    temperature: PositiveFloat = 10_000.0

    def build(self, grid: Grid, prefix: int, width: int) -> "AddedPosition | None":
        """Return the module that adds positions to `prefix` class tokens and the patches, None where nothing is added."""
        return SinCosPosition(grid, prefix, width, self.temperature)


Position = Learned1D | Learned2D | Relative | SinCos2D | NoPosition


def resize(kind: Position, name: str, values: Tensor, prefix: int, old: Grid, new: Grid) -> Tensor:
    """Return the parameter `name` of a kind of position for grid `new`; `prefix` is how many class tokens there are."""
    match kind:
        case Learned1D():
            return resize_table(values, prefix if kind.class_token else 0, old, new)
        case Learned2D() if name in ("rows", "columns"):
            before, after = (old.rows, new.rows) if name == "rows" else (old.columns, new.columns)
            if before == after:
                return values
            return resize_table(values[None], 0, Grid(before, 1), Grid(after, 1))[0]
        case Relative():
            return resize_offsets(values, old, new)
        case _:
            return values


class LearnedPosition(nn.Module):
    """Adds a learned table to the tokens: `table` is [1, prefix + n, d], `prefix` rows for the class token."""

    def __init__(self, grid: Grid, prefix: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.table = nn.Parameter(torch.empty(1, prefix + grid.cells, width))

    def rows_of(self) -> Float[Tensor, "1 n d"]:
        """Return the vectors that are added."""
        return self.table

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the tokens with their positions added."""
        return add_rows(tokens, self.table, self.prefix)


class FactoredPosition(nn.Module):
    """Adds [column vector, row vector] to each patch: `columns` is [columns, d/2], `rows` [rows, d/2]."""

    def __init__(self, grid: Grid, prefix: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.prefix_rows = nn.Parameter(torch.empty(1, prefix, width)) if prefix else None
        self.columns = nn.Parameter(torch.empty(grid.columns, width // 2))
        self.rows = nn.Parameter(torch.empty(grid.rows, width // 2))

    def rows_of(self) -> Float[Tensor, "1 n d"]:
        """Return the vectors that are added."""
        patches = torch.cat(
            [self.columns.repeat(self.grid.rows, 1), self.rows.repeat_interleave(self.grid.columns, dim=0)], dim=1
        )[None]
        return patches if self.prefix_rows is None else torch.cat([self.prefix_rows, patches], dim=1)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the tokens with their positions added."""
        return add_rows(tokens, self.rows_of(), self.prefix)


class SinCosPosition(nn.Module):
    """Adds fixed sines and cosines of the patches' coordinates, zero to the class token."""

    def __init__(self, grid: Grid, prefix: int, width: int, temperature: float) -> None:
        super().__init__()
        self.grid, self.prefix, self.width, self.temperature = grid, prefix, width, temperature

    @cached_property
    def fixed(self) -> Float[Tensor, "1 n d"]:
        """The vectors, computed by `initialise` or at first use: a file may claim any grid. No buffer: no file should hold them."""
        with torch.inference_mode(False):
            patches = sincos(self.grid, self.width, self.temperature)[None]
            return functional.pad(patches, (0, 0, self.prefix, 0))

    def rows_of(self) -> Float[Tensor, "1 n d"]:
        """Return the vectors that are added."""
        return self.fixed

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the tokens with their positions added."""
        return add_rows(tokens, self.fixed.to(tokens.device), self.prefix)


def sincos(grid: Grid, width: int, temperature: float) -> Float[Tensor, "n d"]:
    """Return the sines and cosines of each cell in raster order, see `SinCos2D`; always on the CPU."""
    quarter = width // 4
    exponent = torch.arange(quarter, dtype=torch.float64, device="cpu") / max(quarter - 1, 1)
    omega = torch.exp(-exponent * math.log(temperature))
    y = torch.arange(grid.rows, device="cpu").repeat_interleave(grid.columns)[:, None] * omega
    x = torch.arange(grid.columns, device="cpu").repeat(grid.rows)[:, None] * omega
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1).float()


AddedPosition = LearnedPosition | FactoredPosition | SinCosPosition


def add_rows(tokens: Float[Tensor, "b n d"], rows: Float[Tensor, "1 p d"], prefix: int) -> Float[Tensor, "b n d"]:
    """Add `rows` to the tokens: the first `prefix` to the first tokens, the others to the last; those between get none."""
    between = tokens.shape[1] - rows.shape[1]  # registers, and a class token without a row
    if between:
        none = rows.new_zeros(1, between, rows.shape[2])
        rows = torch.cat([rows[:, :prefix], none, rows[:, prefix:]], dim=1)
    return tokens + rows


def resize_table(table: Float[Tensor, "1 old d"], prefix: int, old: Grid, new: Grid) -> Float[Tensor, "1 new d"]:
    """Resample a position table from grid `old` to grid `new`; the `prefix` rows of the class token are kept as they are.

    Bilinear with aligned corners, computed in float64, as the paper's code does it (section 3.2; scipy's zoom of order 1). That
    code returns zeros in the last row and column for some pairs of grids, by a rounding of coordinates; this does not.

    Raises:
        ValueError: the table does not have `prefix` + `old` rows.
    """
    if table.shape[1] != prefix + old.cells:
        raise ValueError(f"a table of {table.shape[1]} rows does not fit {prefix} + {old.rows}×{old.columns}")
    if old == new:
        return table
    kept, rows = table[:, :prefix], table[:, prefix:]
    image = rows.double().reshape(1, old.rows, old.columns, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(image, size=tuple(new), mode="bilinear", align_corners=True)
    return torch.cat([kept, resized.permute(0, 2, 3, 1).reshape(1, new.cells, -1).to(table.dtype)], dim=1)
