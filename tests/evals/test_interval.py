"""Intervals against other ways to the same numbers, and how often they hold what they are to hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.errors import DataError
from vitlab.evals.interval import bootstrap_interval, over_runs, wilson_interval

Z = 1.959964


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_wilsons_ends_are_the_shares_from_which_the_count_is_just_credible(total, share):
    """They solve (p - share)² = z² p (1 - p) / n, a quadratic in p."""
    correct = round(share * total) / total
    ends = np.roots([1 + Z * Z / total, -(2 * correct + Z * Z / total), correct * correct])
    assert wilson_interval(correct, total) == pytest.approx(sorted(ends.real), abs=1e-7)


def test_a_seed_gives_one_interval_and_all_intervals_hold_the_mean():
    values = np.random.default_rng(1).random(19)
    first, again, other = (bootstrap_interval(values, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first[0] < values.mean() < first[1]
    assert bootstrap_interval(values, level=0.5)[0] > first[0]


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = np.random.default_rng(2).normal(0.5, 0.1, 200)
    low, high = bootstrap_interval(values)
    assert (high - low) / 2 == pytest.approx(Z * values.std() / math.sqrt(len(values)), rel=0.05)


def test_of_equal_values_nothing_is_uncertain():
    assert bootstrap_interval([0.25] * 4) == (0.25, 0.25)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)


def test_runs_are_drawn_within_tasks():
    """Where the tasks are alike, all that is uncertain is the runs; where the runs are alike, they change nothing."""
    runs = np.random.default_rng(3).normal(0.5, 0.1, (1, 5)).repeat(20, axis=0)
    low, high = bootstrap_interval(runs)
    assert (high - low) / 2 == pytest.approx(Z * runs[0].std() / math.sqrt(runs.size), rel=0.05)
    tasks = np.random.default_rng(4).random(20)
    twice = bootstrap_interval(np.stack([tasks, tasks], axis=1))
    assert twice == pytest.approx(bootstrap_interval(tasks), abs=0.01)


def test_many_draws_of_many_tasks_are_made_in_pieces():
    values = np.linspace(0, 1, 5000)
    low, high = bootstrap_interval(values, draws=2000)
    assert (high - low) / 2 == pytest.approx(Z * values.std() / math.sqrt(5000), rel=0.1)


def test_nineteen_tasks_are_covered_about_as_often_as_is_said():
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.beta(3, 1, 19), seed=trial, draws=600)  # skewed, as accuracies are
        held += low <= 0.75 <= high
    assert 0.88 <= held / 300 <= 0.97


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [0.5, math.inf]])
def test_what_is_no_number_is_refused(values):
    for work in (bootstrap_interval, over_runs):
        with pytest.raises(DataError, match=r"no values|1 values of 2 that are not finite"):
            work(values)


def test_over_runs_is_the_sample_standard_deviation():
    found = over_runs([0.8, 0.82, 0.84])
    assert (found.mean, found.std, found.runs) == (pytest.approx(0.82), pytest.approx(0.02), 3)
    assert str(found) == "82.00 ± 2.00 % (mean and sample standard deviation of 3 runs)"
    assert over_runs([0.5]).std is None and str(over_runs([0.5])) == "50.00 % (1 run)"
