import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitlab.nn.attention import SelfAttention
from vitlab.nn.grid import Grid
from vitlab.nn.relative import RelativeLogits, resize_offsets

GRIDS = st.builds(Grid, st.integers(1, 7), st.integers(1, 7))


@pytest.fixture
def attention():
    torch.manual_seed(0)
    attention = SelfAttention(width=12, num_heads=3, relative_tokens=5)
    nn.init.normal_(attention.relative.table)
    return attention


def test_every_pair_of_tokens_reads_the_vector_of_its_offset():
    torch.manual_seed(0)
    relative, query = RelativeLogits(tokens=5, head_dim=4), torch.randn(2, 3, 5, 4)
    nn.init.normal_(relative.table)
    expected = torch.empty(2, 3, 5, 5)
    for i in range(5):
        for j in range(5):
            expected[:, :, i, j] = query[:, :, i] @ relative.table[i - j + 4]
    torch.testing.assert_close(relative(query), expected)
    for count in (1, 3):
        torch.testing.assert_close(relative(query[:, :, :count]), expected[:, :, :count])


def test_the_explicit_weights_are_those_that_the_fused_computation_uses(attention):
    tokens = torch.randn(2, 5, 12)
    values = attention.value(tokens).unflatten(-1, (3, 4)).transpose(1, 2)
    mixed = (attention.weights(tokens) @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(tokens), attention.out(mixed))
    torch.testing.assert_close(attention(tokens, 2), attention.out(mixed)[:, :2])


def test_relative_logits_are_divided_as_the_others_are(attention):
    tokens, (query, key) = torch.randn(1, 5, 12), (attention.query, attention.key)
    for head in range(3):
        rows = slice(4 * head, 4 * head + 4)
        q, k = (tokens[0] @ layer.weight[rows].T + layer.bias[rows] for layer in (query, key))
        logits = torch.stack(
            [torch.stack([q[i] @ (k[j] + attention.relative.table[i - j + 4]) / 2 for j in range(5)]) for i in range(5)]
        )
        torch.testing.assert_close(attention.weights(tokens)[0, head], torch.softmax(logits, dim=-1))


def test_the_order_of_tokens_matters_by_their_offsets(attention):
    tokens = torch.randn(1, 5, 12)
    shuffled = tokens[:, [0, 4, 2, 1, 3]]
    assert not torch.allclose(attention(shuffled, 1), attention(tokens, 1))
    nn.init.zeros_(attention.relative.table)
    torch.testing.assert_close(attention(shuffled, 1), attention(tokens, 1))


def test_gradients_reach_the_table(attention):
    attention(torch.randn(2, 5, 12)).square().sum().backward()
    assert bool((attention.relative.table.grad != 0).any(dim=1).all())


@given(GRIDS, st.integers(0, 2))
def test_the_same_grid_leaves_the_table_untouched(grid, prefix):
    table = torch.randn(2 * (prefix + grid.cells) - 1, 3)
    assert torch.equal(resize_offsets(table, grid, grid), table)


@given(GRIDS, GRIDS, st.integers(0, 2), st.integers(0, 1000))
def test_a_resized_table_has_every_offset_and_stays_within_the_values(old, new, prefix, seed):
    tokens = prefix + old.cells
    table = torch.randn(2 * tokens - 1, 3, generator=torch.Generator().manual_seed(seed))
    resized = resize_offsets(table, old, new)
    assert resized.shape == (2 * (prefix + new.cells) - 1, 3)
    assert float(resized.max()) <= float(table.max()) + 1e-5
    assert float(resized.min()) >= float(table.min()) - 1e-5
    torch.testing.assert_close(resized[resized.shape[0] // 2], table[tokens - 1])


def offsets(grid):
    """Return [rows, columns] for every offset of the sequence: of all pairs of patches, those with fewest columns between."""
    found = {}
    for rows in range(1 - grid.rows, grid.rows):
        for columns in range(1 - grid.columns, grid.columns):
            flat = rows * grid.columns + columns
            found[flat] = min(found.get(flat, (rows, columns)), (rows, columns), key=lambda pair: abs(pair[1]))
    return torch.tensor([found[flat] for flat in sorted(found)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Grid(3, 3), Grid(5, 5)),
        (Grid(5, 5), Grid(3, 3)),
        (Grid(3, 5), Grid(7, 9)),
        (Grid(1, 5), Grid(1, 9)),
        (Grid(4, 1), Grid(7, 1)),
    ],
)
def test_what_is_linear_in_rows_and_columns_is_scaled_along_each(old, new):
    scale = [(before - 1) / (after - 1) if after > 1 else 1.0 for before, after in zip(old, new, strict=True)]
    resized = resize_offsets(offsets(old), old, new)
    torch.testing.assert_close(resized, offsets(new) * torch.tensor(scale, dtype=torch.float64))


def test_one_row_up_stays_one_row_up():
    """A vector learned for the patch above is found again where the grid has more rows of the same height."""
    old, new = Grid(3, 3), Grid(3, 5)
    table = torch.zeros(2 * old.cells - 1, 1)
    table[old.cells - 1 + old.columns] = 1.0
    resized = resize_offsets(table, old, new)
    assert int(resized.argmax()) - (new.cells - 1) == new.columns
    assert float(resized.max()) == 1.0
