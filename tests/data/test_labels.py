import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data import labels as labels_module
from vitlab.data.batch import collate
from vitlab.data.labels import count_labels, from_flat, label_at, multi_hot, renumber, stack, strata
from vitlab.data.source import Part, Subset

SETS = st.lists(st.sets(st.integers(0, 5), max_size=4), min_size=1, max_size=20)


def rows(sets):
    """Labels [n, m] of sets of classes."""
    return from_flat(np.array([c for each in sets for c in sorted(each)], np.int64), np.array(list(map(len, sets))))


@given(SETS)
def test_rows_are_the_classes_of_each_image_in_order_padded_to_the_longest(sets):
    labels = rows(sets)
    assert labels.dtype == np.int64 and labels.shape == (len(sets), max(1, *map(len, sets), 1))
    assert [label_at(labels, index) for index in range(len(sets))] == [tuple(sorted(each)) for each in sets]
    assert (np.sort(labels == -1, axis=1) == (labels == -1)).all()  # padding stands last


def test_a_repeated_label_counts_once_and_order_does_not_matter():
    assert from_flat(np.array([3, 1, 3, 0]), np.array([3, 0, 1])).tolist() == [[1, 3], [-1, -1], [0, -1]]


def test_labels_that_would_take_too_much_memory_are_refused_before_they_do(monkeypatch):
    monkeypatch.setattr(labels_module, "MAX_CELLS", 100)
    with pytest.raises(ValueError, match="one of 60 images has 2 labels"):
        from_flat(np.array([0, 1]), np.array([2] + [0] * 59))


@given(SETS)
def test_counts_and_multi_hot_rows_are_those_by_hand(sets):
    labels = rows(sets)
    expected = np.array([[c in each for c in range(6)] for each in sets])
    np.testing.assert_array_equal(multi_hot(labels, 6), expected)
    np.testing.assert_array_equal(count_labels(labels, 6), expected.sum(axis=0))


def test_one_label_an_image_counts_the_same_way():
    labels = np.array([0, 2, 2])
    assert count_labels(labels, 4).tolist() == [1, 0, 2, 0]
    assert multi_hot(labels, 3).tolist() == [[True, False, False], [False, False, True], [False, False, True]]
    assert label_at(labels, 1) == 2


def test_renumbering_leaves_padding_alone():
    places = np.array([5, 0, 1])
    assert renumber(np.array([[0, 2], [1, -1], [-1, -1]]), places).tolist() == [[5, 1], [0, -1], [-1, -1]]
    assert renumber(np.array([0, 2, 1]), places).tolist() == [5, 1, 0]
    labels = np.array([0, 1, 2])
    assert renumber(labels, np.arange(3)) is labels  # a mapped file is not read


def test_a_batch_pads_its_labels_to_the_longest():
    images = [np.zeros((2, 2, 3), np.uint8)] * 3
    assert stack([4, 5]).tolist() == [4, 5]
    batch = collate(images, [(1, 2), (), (0,)], ["a", "b", "c"], 4)
    assert batch.labels.tolist() == [[1, 2], [-1, -1], [0, -1], [-1, -1]]
    assert batch.valid.tolist() == [True, True, True, False]
    assert collate(images[:1], [7], ["a"], 2).labels.tolist() == [7, 0]


def test_an_image_is_counted_for_its_rarest_label():
    labels = rows([{0}, {0, 1}, {0, 1, 2}, set(), {0, 1}, {1, 2}])
    assert strata(labels).tolist() == [0, 0, 2, 3, 0, 2]  # four images each have 0 and 1: the first of them
    assert strata(np.array([1, 0])).tolist() == [1, 0]


@given(SETS, st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 3))
def test_both_sides_are_disjoint_and_every_class_is_trained(sets, fraction, seed):
    labels = rows(sets)
    train, test = (Part(side=side, fraction=fraction, seed=seed).indices(labels) for side in ("train", "test"))
    assert sorted([*train, *test]) == list(range(len(sets)))
    trained = {c for index in train for c in sets[index]}
    assert trained == {c for each in sets for c in each}


def test_every_class_has_about_its_share_on_either_side():
    rng = np.random.default_rng(0)
    sets = [{c for c, share in enumerate([0.5, 0.2, 0.05, 0.02]) if rng.random() < share} for _ in range(2000)]
    labels = rows(sets)
    test = labels[Part(side="test", fraction=0.2).indices(labels)]
    shares = count_labels(test, 4) / count_labels(labels, 4)
    assert np.abs(shares - 0.2).max() < 0.06
    assert abs((test == -1).all(axis=1).sum() / (labels == -1).all(axis=1).sum() - 0.2) < 0.01


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 3))
def test_a_split_of_one_label_an_image_is_what_it_always_was(values, seed):
    labels, expected = np.array(values), []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(len(members) * 0.3)), len(members) - 1)
        expected += np.random.default_rng((seed, int(label))).permutation(members)[:count].tolist()
    assert Part(side="test", fraction=0.3, seed=seed).indices(labels).tolist() == sorted(expected)
    left = sorted(set(range(len(values))) - set(expected))
    assert Part(side="train", fraction=0.3, seed=seed).indices(labels).tolist() == left


def test_a_subset_keeps_its_rows(make_source):
    source = make_source(4)
    source.labels = rows([{0}, {1, 2}, set(), {2}])
    assert Subset(source, [1, 2]).labels.tolist() == [[1, 2], [-1, -1]]
