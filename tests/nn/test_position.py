import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.nn.grid import Grid
from vitlab.nn.position import LearnedPosition, resize_table

GRIDS = st.builds(Grid, st.integers(1, 12), st.integers(1, 12))


def test_positions_are_added_to_every_token():
    position = LearnedPosition(Grid(2, 3), 1, 4)
    with torch.no_grad():
        position.table.copy_(torch.randn(1, 7, 4))
    tokens = torch.randn(5, 7, 4)
    assert torch.equal(position(tokens), tokens + position.table)


def test_the_same_grid_leaves_the_table_untouched():
    table = torch.randn(1, 10, 4)
    assert torch.equal(resize_table(table, 1, Grid(3, 3), Grid(3, 3)), table)


@given(GRIDS, GRIDS, st.integers(0, 2), st.integers(0, 1000))
def test_resizing_stays_within_the_values_and_keeps_prefix_and_corners(old, new, prefix, seed):
    table = torch.randn(1, prefix + old.cells, 3, generator=torch.Generator().manual_seed(seed))
    resized = resize_table(table, prefix, old, new)
    assert resized.shape == (1, prefix + new.cells, 3)
    assert torch.equal(resized[:, :prefix], table[:, :prefix])
    before, after = table[0, prefix:].unflatten(0, tuple(old)), resized[0, prefix:].unflatten(0, tuple(new))
    assert float(after.max()) <= float(before.max()) + 1e-5
    assert float(after.min()) >= float(before.min()) - 1e-5
    torch.testing.assert_close(after[0, 0], before[0, 0])
    if new.rows > 1 and new.columns > 1:
        torch.testing.assert_close(after[-1, -1], before[-1, -1], rtol=1e-4, atol=1e-4)


def test_a_plane_stays_a_plane():
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 4), torch.linspace(0, 1, 6), indexing="ij")
    table = torch.stack([rows, columns], dim=-1).reshape(1, 24, 2)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 9), torch.linspace(0, 1, 5), indexing="ij")
    expected = torch.stack([rows, columns], dim=-1).reshape(1, 45, 2)
    torch.testing.assert_close(resize_table(table, 0, Grid(4, 6), Grid(9, 5)), expected)


def test_the_type_of_the_table_is_kept():
    table = torch.randn(1, 5, 4, dtype=torch.float64)
    assert resize_table(table, 1, Grid(2, 2), Grid(3, 3)).dtype == torch.float64


def test_a_table_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"10 rows does not fit 1 \+ 4×4"):
        resize_table(torch.randn(1, 10, 4), 1, Grid(4, 4), Grid(5, 5))
