"""Axial attention: the tokens of a column, then those of a row, instead of all at once (appendix D.6)."""

from jaxtyping import Float
from torch import Tensor, nn

from vitlab.nn.encoder import Block, BlockSettings
from vitlab.nn.grid import Grid


class AxialBlock(nn.Module):
    """Two blocks in the place of one, each with attention and MLP of its own, on a grid of tokens without a class token.

    As in the author's code, `row` comes first and attends along the height (from row to row, within a column), `column` along
    the width.
    """

    def __init__(self, settings: BlockSettings, grid: Grid, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.grid = grid
        self.row = Block(settings, drop_rate)
        self.column = Block(settings, drop_rate)

    def forward(self, x: Float[Tensor, "b n d"], num_outputs: int | None = None) -> Float[Tensor, "b q d"]:
        """Return the first `num_outputs` tokens after this block (all when None)."""
        b, n, d = x.shape
        rows, columns = self.grid
        tall = x.reshape(b, rows, columns, d).transpose(1, 2).reshape(b * columns, rows, d)
        tall = self.row(tall).reshape(b, columns, rows, d).transpose(1, 2)
        wide = self.column(tall.reshape(b * rows, columns, d))
        return wide.reshape(b, n, d)[:, :num_outputs]
