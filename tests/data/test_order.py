from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data.order import examples_at, permute

SEEDS = st.integers(0, 2**32)


def positions(start, stop):
    return np.arange(start, stop, dtype=np.int64)


@given(st.integers(1, 2000), st.integers(0, 1000), SEEDS)
def test_every_epoch_shows_every_example_once(count, epoch, seed):
    shown = examples_at(positions(epoch * count, (epoch + 1) * count), count, seed)
    assert shown.dtype == np.int64
    np.testing.assert_array_equal(np.sort(shown), np.arange(count))


@given(st.integers(1, 300), SEEDS, st.lists(st.integers(1, 97), min_size=1, max_size=8))
def test_what_stands_at_a_position_does_not_depend_on_how_it_is_asked_for(count, seed, sizes):
    end = sum(sizes)
    whole = examples_at(positions(0, end), count, seed)
    edges = np.cumsum([0, *sizes])
    parts = [examples_at(positions(a, b), count, seed) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    one_by_one = [int(examples_at(positions(p, p + 1), count, seed)[0]) for p in range(min(end, 10))]
    assert one_by_one == whole[:10].tolist()
    backwards = examples_at(positions(0, end)[::-1].copy(), count, seed)
    np.testing.assert_array_equal(backwards[::-1], whole)


def test_epochs_and_seeds_give_other_orders():
    first, second = examples_at(positions(0, 100), 100, 0), examples_at(positions(100, 200), 100, 0)
    assert first.tolist() != second.tolist()
    assert first.tolist() != examples_at(positions(0, 100), 100, 1).tolist()
    assert first.tolist() == examples_at(positions(0, 100), 100, 0).tolist()


@pytest.mark.parametrize("start", [0, 10**10 - 500, 7 * 10**12 + 3])
def test_ten_billion_examples_need_no_memory(start):
    """A table of that order would take 80 GB."""
    shown = examples_at(positions(start, start + 1000), 10**10, 3)
    assert shown.min() >= 0
    assert shown.max() < 10**10
    across = (start // 10**10) != ((start + 999) // 10**10)
    assert across or len(set(shown.tolist())) == 1000
    assert np.ptp(shown) > 9 * 10**9


def test_every_example_is_as_likely_to_be_first():
    """4,000 epochs of 10 examples: counts of 400 with a deviation of 19 each."""
    firsts = examples_at(np.arange(4000, dtype=np.int64) * 10, 10, 0)
    counts = np.bincount(firsts, minlength=10)
    assert np.abs(counts - 400).max() < 5 * 19


def test_neighbours_are_not_kept_together():
    """In a random order one pair in n follows its neighbour, one in 2,000 here."""
    shown = examples_at(positions(0, 20_000), 2000, 0)
    assert (np.diff(shown) == 1).sum() < 40
    rank = np.corrcoef(positions(0, 2000), shown[:2000])[0, 1]
    assert abs(rank) < 0.1


@given(st.integers(1, 500), st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_a_key_of_any_length_selects_a_permutation(count, key):
    shown = permute(positions(0, count), count, tuple(key))
    np.testing.assert_array_equal(np.sort(shown), np.arange(count))


def test_the_order_is_the_same_in_every_version():
    """A run that was interrupted goes on in the order that it began in, also after an update."""
    assert examples_at(positions(0, 12), 10, 0).tolist() == [5, 6, 7, 4, 8, 9, 3, 1, 2, 0, 6, 1]
    end = 2 * 10**10
    shown = examples_at(positions(end - 2, end + 2), 10**10, 5).tolist()
    assert shown == [8312318937, 6461633897, 3352651571, 1650064538]


def test_no_position_gives_no_example():
    assert examples_at(positions(0, 0), 10, 0).tolist() == []
