"""Position embeddings; each can resize itself to another grid."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.nn.grid import Grid


class Learned1D(Settings):
    """One learned vector for each token of the raster sequence, the class token's own row first (the paper's default)."""

    type: Literal["Learned1D"] = "Learned1D"


class LearnedPosition(nn.Module):
    """Adds a learned table to the tokens: `table` is [1, prefix + n, d], `prefix` rows for the class token."""

    def __init__(self, grid: Grid, prefix: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.table = nn.Parameter(torch.empty(1, prefix + grid.cells, width))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the tokens with their positions added."""
        return tokens + self.table


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
