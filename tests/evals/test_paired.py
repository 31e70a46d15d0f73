"""Two models on the same images: the test against sums of binomials, the interval by how often it holds the truth."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.errors import DataError
from vitlab.evals.classify import Predictions
from vitlab.evals.multilabel import MultiLabelPredictions
from vitlab.evals.paired import Paired, compare, pair

CLASSES = ("ant", "bee", "cat")
counts = st.integers(0, 60)


def p_value_by_hand(one, other):
    """Both tails of as many tosses of a coin."""
    tosses, far = one + other, max(one, other)
    tail = sum(math.comb(tosses, heads) for heads in range(far, tosses + 1))
    return min(1.0, 2 * tail / 2**tosses)


@given(counts, counts)
def test_mcnemars_test_is_two_tails_of_a_binomial(one, other):
    assert Paired(5, one, other, 5).p_value() == pytest.approx(p_value_by_hand(one, other), rel=1e-9)


def test_mcnemars_test_of_very_many_images_neither_overflows_nor_is_slow():
    assert Paired(0, 25_000, 25_000, 0).p_value() == 1
    assert Paired(0, 24_000, 26_000, 0).p_value() == pytest.approx(
        math.erfc(1999 / math.sqrt(50_000) / math.sqrt(2)), rel=0.05
    )
    assert Paired(0, 50_000, 0, 0).p_value() == 0


@given(counts.filter(bool), counts, counts, counts)
def test_the_interval_holds_the_difference_and_turns_with_the_models(both, one, other, neither):
    found, turned = Paired(both, one, other, neither), Paired(both, other, one, neither)
    low, high = found.interval()
    assert -1 <= low <= found.difference + 1e-12 and found.difference - 1e-12 <= high <= 1
    assert turned.interval() == pytest.approx((-high, -low), abs=1e-12)


def test_the_interval_of_independent_answers_joins_two_of_wilsons():
    """With no agreement it is Newcombe's interval for two separate samples."""
    found = Paired(25, 25, 25, 25)
    assert found.interval() == pytest.approx((-0.1358, 0.1358), abs=1e-3)


@pytest.mark.parametrize("shares", [(0.7, 0.1, 0.05, 0.15), (0.9, 0.05, 0.02, 0.03)], ids=str)
def test_the_interval_holds_the_truth_as_often_as_is_said(shares):
    rng, truth = np.random.default_rng(0), shares[1] - shares[2]
    drawn = [Paired(*map(int, row)) for row in rng.multinomial(200, shares, size=1500)]
    held = [low <= truth <= high for low, high in (each.interval() for each in drawn)]
    assert 0.93 <= np.mean(held) <= 0.98


def test_right_answers_are_counted_together():
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool)
    found = pair(first, second)
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 2, 1, 1)
    assert (found.first, found.second, found.difference) == pytest.approx((0.6, 0.4, 0.2))
    assert "difference +20.00 points" in found.lines()[0] and "2 images, the other 1" in found.lines()[1]
    assert found.as_json()["p_value"] == 1


def predictions(predicted, labels, classes=CLASSES):
    shares = np.full((len(predicted), len(classes)), 0.1, np.float32)
    shares[np.arange(len(predicted)), predicted] = 0.8
    return Predictions(shares, np.array(labels), tuple(f"image-{index}" for index in range(len(predicted))), classes)


def test_images_are_matched_by_their_keys_and_classes_by_their_names():
    first = predictions([0, 1, 2, 2], [0, 1, 2, 0])
    second = Predictions(
        predictions([1, 0, 0, 0], [1, 0, 2, 1], ("bee", "ant", "cat")).probabilities,
        np.array([1, 2, 0, 1]),  # ant, cat, bee, ant
        ("image-3", "image-2", "image-1", "image-0"),
        ("bee", "ant", "cat"),
    )
    found = compare(first, second)  # the second says ant, bee, bee, bee of images 3, 2, 1, 0
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 2, 1, 0)


def test_what_cannot_be_compared_is_refused_by_name():
    first = predictions([0, 1, 2], [0, 1, 2])
    for other, words in (
        (replace(first, keys=("image-0", "image-1", "image-9")), "'image-2' is only in one of them"),
        (replace(first, keys=("image-0", "image-1", "image-1")), "'image-2' is only in one of them"),
        (replace(first, classes=("ant", "bee", "dog")), r"other classes \(3 and 3, 'cat' is in one alone\)"),
        (replace(first, labels=np.array([0, 2, 2])), "other labels, the first of 'image-1'"),
    ):
        with pytest.raises(DataError, match=words):
            compare(first, other)
    twice = replace(first, keys=("a", "a", "b"))
    with pytest.raises(DataError, match="a name is there more than once"):
        compare(twice, replace(first, keys=("a", "b", "b")))
    assert compare(twice, twice).images == 3  # in the same order there is no doubt


def test_images_without_a_label_do_not_count():
    shares = predictions([0, 1, 2], [0, 1, 2]).probabilities
    labels = np.array([[0, 2], [-1, -1], [1, -1]])
    one = MultiLabelPredictions(shares, labels, ("x", "y", "z"), CLASSES, exclusive=True)
    other = replace(one, probabilities=shares[::-1])
    found = compare(one, other)
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 0, 0, 1)
