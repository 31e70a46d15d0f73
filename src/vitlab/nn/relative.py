"""Relative position logits (appendix D.4)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitlab.nn.grid import Grid


class RelativeLogits(nn.Module):
    """Extra attention logits q · r with one learned vector for each offset between two tokens of the raster sequence.

    `table` is [2t - 1, e] for t tokens, offsets -(t - 1) … t - 1. The paper does not say more; here each layer has a table of
    its own, shared by its heads, and the class token is number 0 of the sequence.
    """

    def __init__(self, tokens: int, head_dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(2 * tokens - 1, head_dim))

    def forward(self, query: Float[Tensor, "b m q e"]) -> Float[Tensor, "b m q n"]:
        """Return the logits of the first q tokens towards all, before the division by √e."""
        tokens = (self.table.shape[0] + 1) // 2
        position = torch.arange(tokens, device=query.device)
        offset = position[: query.shape[2], None] - position[None, :] + tokens - 1
        by_offset = query @ self.table.T
        return by_offset.gather(3, offset.expand(*query.shape[:2], -1, -1))


def resize_offsets(table: Float[Tensor, "old e"], old: Grid, new: Grid) -> Float[Tensor, "new e"]:
    """Resample an offset table from grid `old` to grid `new`; the tokens before the patches stay as many as they were.

    An offset of the raster sequence is so many rows of the grid and so many columns, of these at most half of the grid unless
    there are no more rows. A new offset is scaled to the old grid along either axis and read there bilinearly: what was learned
    of "one row up" stays with one row up.
    """
    if old == new:
        return table
    reach_old = (table.shape[0] - 1) // 2
    reach_new = reach_old - old.cells + new.cells
    offset = torch.arange(-reach_new, reach_new + 1, dtype=torch.float64)
    rows = torch.round(offset / new.columns).clamp(1 - new.rows, new.rows - 1)
    columns = (offset - rows * new.columns) * _scale(old.columns, new.columns)
    rows = rows * _scale(old.rows, new.rows)
    result = torch.zeros(offset.shape[0], table.shape[1], dtype=torch.float64)
    for row, row_share in _neighbours(rows):
        for column, column_share in _neighbours(columns):
            index = (row * old.columns + column).clamp(-reach_old, reach_old) + reach_old
            result += (row_share * column_share)[:, None] * table.double()[index]
    return result.to(table.dtype)


def _scale(old: int, new: int) -> float:
    return (old - 1) / (new - 1) if new > 1 and old > 1 else 1.0


def _neighbours(position: Float[Tensor, " n"]) -> list[tuple[Tensor, Tensor]]:
    """Return the whole numbers on either side of `position` with their shares."""
    below = position.floor()
    share = position - below
    return [(below.long(), 1 - share), (below.long() + 1, share)]
