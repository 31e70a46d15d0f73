import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.inspection.compact import Cells, cells_within, coarser, membership, pack
from vitlab.nn.grid import Grid

grids = st.builds(Grid, st.integers(1, 9), st.integers(1, 9))


def attention_on(grid, heads=2):
    generator = torch.Generator().manual_seed(0)
    return torch.softmax(3 * torch.randn(heads, grid.cells, grid.cells, generator=generator), dim=-1)


def unpack(packed):
    return packed.values / 255 * packed.peaks[..., None]


@given(grids)
def test_without_coarser_cells_a_weight_is_kept_to_half_of_a_255th_of_its_rows_largest(grid):
    weights = attention_on(grid)
    packed = pack(weights, Cells(grid))
    error = np.abs(unpack(packed) - weights.numpy())
    assert (error <= packed.peaks[..., None] * (0.5 / 255 + 1e-6)).all()


@given(grids, st.integers(1, 4), st.integers(1, 4))
def test_a_row_of_coarser_cells_has_the_mean_sum_of_its_patches(grid, query, key):
    cells = Cells(grid, query, key)
    packed = pack(attention_on(grid), cells)
    assert packed.values.shape == (2, cells.queries.cells, cells.keys.cells)
    np.testing.assert_allclose(unpack(packed).sum(axis=-1), 1, atol=cells.keys.cells / 255)


def test_a_coarser_cell_looks_as_its_patches_do_on_average_and_is_looked_at_as_they_are_together():
    grid = Grid(2, 3)
    weights = attention_on(grid, heads=1)
    found = unpack(pack(weights, Cells(grid, 2, 2)))[0]
    right = [2, 5]  # the second cell covers what is left of an odd number of columns
    assert found[0, 1] == pytest.approx(float(weights[0][[0, 1, 3, 4]][:, right].sum(dim=1).mean()), abs=0.004)


@given(grids, st.integers(1, 4))
def test_every_patch_is_in_one_cell(grid, factor):
    covered = membership(grid, factor)
    assert covered.shape == (coarser(grid, factor).cells, grid.cells)
    assert torch.equal(covered.sum(dim=0), torch.ones(grid.cells)) and bool((covered.sum(dim=1) >= 1).all())


@given(grids, st.integers(1, 7000))
def test_cells_are_as_fine_as_fits(grid, budget):
    cells = cells_within(grid, budget)
    assert cells.size <= budget or cells.keys.cells == 1
    assert cells.query - cells.key in (0, 1)
    if cells != Cells(grid):
        finer = Cells(grid, cells.query - (cells.query > cells.key), cells.key - (cells.query == cells.key))
        assert finer.size > budget


def test_attention_of_zeros_is_packed_without_dividing_by_zero():
    packed = pack(torch.zeros(1, 4, 4), Cells(Grid(2, 2)))
    assert not packed.values.any() and not packed.peaks.any()
