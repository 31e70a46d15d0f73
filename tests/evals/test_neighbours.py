import numpy as np
import pytest

from vitlab.errors import SettingsError
from vitlab.evals import neighbours as module
from vitlab.evals.features import Labelled
from vitlab.evals.neighbours import nearest, neighbours


def clouds(count, seed, width=6, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    values = (centres[labels] + 1.2 * rng.normal(size=(count, width))) * rng.uniform(0.1, 10, (count, 1))
    return Labelled(values.astype(np.float32), labels.astype(np.int64))


def by_hand(train, test, classes, count, temperature):
    """The definition, one query at a time."""
    right = 0
    for query, label in zip(test.values.astype(np.float64), test.labels, strict=True):
        cosines = train.values @ query / np.linalg.norm(train.values, axis=1) / np.linalg.norm(query)
        votes = np.zeros(classes)
        for place in np.argsort(-cosines, kind="stable")[:count]:
            votes[train.labels[place]] += 1 if temperature is None else np.exp(cosines[place] / temperature)
        right += votes.argmax() == label
    return right / len(test)


@pytest.mark.parametrize("temperature", [0.07, None])
def test_votes_are_counted_as_they_are_defined(temperature):
    train, test = clouds(80, 0), clouds(50, 1)
    found = neighbours(train, test, 4, (1, 5, 80), temperature)
    assert found == {count: by_hand(train, test, 4, count, temperature) for count in (1, 5, 80)}
    assert 0.4 < found[5] < 1


def test_memory_bounded_to_a_row_at_a_time_changes_nothing(monkeypatch):
    train, test = clouds(40, 2), clouds(30, 3)
    whole = neighbours(train, test, 4, (3, 7))
    monkeypatch.setattr(module, "_CELLS", 1)
    assert neighbours(train, test, 4, (3, 7)) == whole


def test_an_example_is_its_own_nearest():
    train = clouds(30, 4)
    assert neighbours(train, train, 4, (1,)) == {1: 1.0}


def test_a_feature_of_zeros_is_no_trouble():
    train = clouds(30, 5)
    train.values[3] = 0
    assert np.isfinite(neighbours(train, train, 4, (30,))[30])


@pytest.mark.parametrize("count", [0, 31])
def test_more_neighbours_than_there_are_images_are_refused(count):
    with pytest.raises(SettingsError, match="30 training images; give a number from 1 to 30"):
        neighbours(clouds(30, 6), clouds(5, 7), 4, (count,))


def test_the_nearest_are_the_rows_of_the_largest_cosine_whatever_their_length():
    bank = np.array([[1, 0], [0, 5], [3, 3], [-1, 0], [2, 0]], np.float32)
    cosines, places = nearest(bank, np.array([[4, 0], [0, -1]], np.float32), 3)
    assert places.tolist() == [[0, 4, 2], [0, 3, 4]]
    np.testing.assert_allclose(cosines, [[1, 1, 0.5**0.5], [0, 0, 0]], atol=1e-6)


def test_there_are_no_more_nearest_than_rows():
    cosines, places = nearest(np.eye(2, dtype=np.float32), np.ones((1, 2), np.float32), 6)
    assert cosines.shape == places.shape == (1, 2)
