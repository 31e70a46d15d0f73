import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitlab.nn.grid import Grid
from vitlab.nn.position import (
    Learned1D,
    Learned2D,
    LearnedPosition,
    NoPosition,
    Relative,
    SinCos2D,
    resize,
    resize_table,
    sincos,
)

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


def filled(kind, grid, prefix, width):
    torch.manual_seed(0)
    position = kind.build(grid, prefix, width)
    for parameter in position.parameters():
        nn.init.normal_(parameter)
    return position


def test_a_patch_has_the_vector_of_its_column_and_then_that_of_its_row():
    position = filled(Learned2D(), Grid(2, 3), 1, 8)
    assert (position.columns.shape, position.rows.shape) == ((3, 4), (2, 4))
    rows = position.rows_of()
    assert torch.equal(rows[:, :1], position.prefix_rows)
    for row in range(2):
        for column in range(3):
            expected = torch.cat([position.columns[column], position.rows[row]])
            assert torch.equal(rows[0, 1 + 3 * row + column], expected)
    tokens = torch.randn(2, 7, 8)
    assert torch.equal(position(tokens), tokens + rows)


@pytest.mark.parametrize("kind", [Learned1D(), Learned2D(), SinCos2D()])
def test_registers_get_no_position_and_the_others_keep_theirs(kind):
    position = filled(kind, Grid(2, 3), 1, 8)
    tokens = torch.randn(2, 1 + 4 + 6, 8)
    added = position(tokens) - tokens
    assert torch.equal(added[:, 1:5], torch.zeros(2, 4, 8))
    without = torch.cat([tokens[:, :1], tokens[:, 5:]], dim=1)
    torch.testing.assert_close(torch.cat([added[:, :1], added[:, 5:]], dim=1), position(without) - without)


def test_sines_and_cosines_leave_the_class_token_as_it_is():
    position = filled(SinCos2D(), Grid(2, 3), 1, 8)
    tokens = torch.zeros(1, 7, 8)
    assert torch.equal(position(tokens)[:, 0], tokens[:, 0])
    assert torch.equal(position(tokens)[0, 1:], sincos(Grid(2, 3), 8, 10_000.0))
    assert list(position.parameters()) == []
    assert position.state_dict() == {}


def test_sines_stand_for_columns_before_rows_and_turn_slower_with_every_pair():
    table = sincos(Grid(3, 4), 8, 100.0).unflatten(0, (3, 4))
    for row in range(3):
        for column in range(4):
            places = [(wave, place) for place in (column, row) for wave in (math.sin, math.cos)]
            expected = [wave(place * omega) for wave, place in places for omega in (1.0, 0.01)]
            torch.testing.assert_close(table[row, column], torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [NoPosition(), Relative()])
def test_kinds_that_add_nothing_have_no_module(kind):
    assert kind.build(Grid(2, 3), 1, 8) is None


def test_rows_and_columns_are_resized_each_along_its_own():
    old, new = Grid(3, 5), Grid(5, 3)
    rows, columns = torch.arange(3.0)[:, None].repeat(1, 4), torch.arange(5.0)[:, None].repeat(1, 4)
    resized = resize(Learned2D(), "rows", rows, 1, old, new)
    torch.testing.assert_close(resized, torch.linspace(0, 2, 5)[:, None].repeat(1, 4))
    resized = resize(Learned2D(), "columns", columns, 1, old, new)
    torch.testing.assert_close(resized, torch.linspace(0, 4, 3)[:, None].repeat(1, 4))
    prefix = torch.randn(1, 1, 8)
    assert torch.equal(resize(Learned2D(), "prefix_rows", prefix, 1, old, new), prefix)
