import pytest
import torch

from vitlab.nn.axial import AxialBlock
from vitlab.nn.encoder import BlockSettings
from vitlab.nn.grid import Grid

GRID = Grid(3, 4)


@pytest.fixture
def block():
    torch.manual_seed(0)
    return AxialBlock(BlockSettings(8, 2, 16), GRID).eval()


@pytest.fixture
def tokens():
    return torch.randn(2, GRID.cells, 8, generator=torch.Generator().manual_seed(1))


def on_grid(tokens):
    return tokens.unflatten(1, tuple(GRID))


def test_each_column_passes_the_row_block_then_each_row_the_column_block(block, tokens):
    image = on_grid(tokens)
    down = torch.stack([block.row(image[:, :, column]) for column in range(GRID.columns)], dim=2)
    across = torch.stack([block.column(down[:, row]) for row in range(GRID.rows)], dim=1)
    torch.testing.assert_close(block(tokens), across.flatten(1, 2))


def test_the_row_block_sees_only_the_column_of_a_token(block, tokens):
    seen = []
    block.column.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].reshape(2, *GRID, 8)))
    changed = tokens.clone()
    changed[:, 1 * GRID.columns + 2] += 1
    block(tokens), block(changed)
    moved = (seen[1] - seen[0]).abs().amax(dim=(0, 3)) > 0
    expected = torch.zeros(*GRID, dtype=torch.bool)
    expected[:, 2] = True
    assert torch.equal(moved, expected)


def test_the_two_blocks_together_see_every_token(block, tokens):
    changed = tokens.clone()
    changed[:, 0] *= -1  # a shift of the whole token would be undone by the norm
    moved = (block(changed) - block(tokens)).abs().amax(dim=(0, 2)) > 1e-5
    assert bool(moved.all())


def test_the_two_blocks_have_weights_of_their_own(block):
    names = {name for name, _ in block.row.named_parameters()}
    assert names == {name for name, _ in block.column.named_parameters()}
    assert not {id(parameter) for parameter in block.row.parameters()} & set(map(id, block.column.parameters()))


def test_fewer_outputs_are_the_first_of_the_whole(block, tokens):
    assert torch.equal(block(tokens, 5), block(tokens)[:, :5])
