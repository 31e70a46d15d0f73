"""Calibration against the definitions, example by example."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vitlab.evals.calibration import brier_score, calibrate


@st.composite
def answers(draw):
    """Confidences, on the edges of bins too, and whether each answer is right."""
    count = draw(st.integers(1, 40))
    sure = draw(
        arrays.arrays(np.float64, count, elements=st.floats(0, 1) | st.sampled_from([i / 15 for i in range(16)]))
    )
    return sure, draw(arrays.arrays(np.bool_, count))


@given(answers(), st.sampled_from([1, 4, 15]))
def test_the_errors_are_those_by_their_definition(answer, bins):
    sure, right = answer
    expected, largest = 0.0, 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        own = [i for i, c in enumerate(sure) if low < c <= high or (number == 0 and c == 0)]
        if own:
            gap = abs(sum(right[i] for i in own) / len(own) - sum(sure[i] for i in own) / len(own))
            expected, largest = expected + len(own) / len(sure) * gap, max(largest, gap)
    found = calibrate(sure, right, bins)
    assert found.counts.sum() == len(sure) and len(found.counts) == bins
    assert (found.ece, found.mce) == (pytest.approx(expected, abs=1e-12), pytest.approx(largest, abs=1e-12))


def test_an_honest_model_has_almost_no_error_and_a_boaster_has():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.2, 1, 100_000)
    assert calibrate(sure, rng.random(100_000) < sure).ece < 0.01
    boast = calibrate(np.full(10, 0.99, np.float32), np.arange(10) < 6)
    assert boast.ece == boast.mce == pytest.approx(0.39) and boast.counts[-1] == 10


def test_brier_is_the_squared_distance_from_the_truth():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], np.float32)
    labels = np.array([0, 2, 1])
    by_hand = [(0.3**2 + 0.2**2 + 0.1**2), 0.0, 2.0]
    assert brier_score(probabilities, labels) == pytest.approx(np.mean(by_hand), rel=1e-6)
