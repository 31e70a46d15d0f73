import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.errors import DataError, SettingsError
from vitlab.evals.fewshot import BIAS, SWEEP, best_by_rank, choose, fewshot, solve, sweep

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda values: np.array(values, np.int64))


@given(LABELS, st.integers(1, 6), st.integers(0, 100))
def test_every_class_gives_the_shots_it_has_and_none_twice(labels, shots, seed):
    chosen = choose(labels, shots, seed)
    counts = np.bincount(labels)
    assert len(set(chosen.tolist())) == len(chosen)
    np.testing.assert_array_equal(np.bincount(labels[chosen], minlength=len(counts)), np.minimum(counts, shots))
    np.testing.assert_array_equal(choose(labels, shots, seed), chosen)


def test_another_seed_chooses_others():
    labels = np.repeat(np.arange(3), 50)
    assert choose(labels, 5, 0).tolist() != choose(labels, 5, 1).tolist()


@given(st.integers(2, 40), st.integers(1, 40), st.integers(2, 5), st.sampled_from([1e-3, 1.0, 2.0**10]))
def test_the_weights_minimise_the_regularised_squares(count, width, classes, l2):
    """The gradient of |x w - y|² + l2 |w|² is zero at the solution, in whichever form it was found."""
    rng = np.random.default_rng(count * 100 + width)
    features, labels = rng.normal(size=(count, width)), np.arange(count) % classes
    head = solve(features, labels, classes, l2)
    x = np.hstack([(features - features.mean(0)) / (features.std(0) + 1e-5), np.full((count, 1), BIAS)])
    y = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    gradient = x.T @ (x @ head.weights - y) + l2 * head.weights
    terms = np.abs(x).T @ (np.abs(x) @ np.abs(head.weights) + np.abs(y)) + l2 * np.abs(head.weights)
    np.testing.assert_allclose(gradient, 0, atol=1e-9 * terms.max())  # of what cancels: x may be nearly singular
    np.testing.assert_allclose(head.scores(features), x @ head.weights, atol=1e-9)


def test_a_feature_that_never_changes_does_no_harm():
    rng = np.random.default_rng(0)
    features = np.hstack([rng.normal(size=(20, 3)), np.full((20, 1), 7.0)]).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    head = solve(features, labels, 2, 1.0)
    assert np.isfinite(head.weights).all()
    assert head.accuracy(features, labels) > 0.9


def bright_and_dark(make_source, count):
    rng = np.random.default_rng(count)
    levels = [40, 220] * (count // 2)
    images = [rng.integers(level - 30, level + 30, (8, 8, 3), dtype=np.uint8) for level in levels]
    return make_source(images=images, labels=[0, 1] * (count // 2), classes=("dark", "light"))


def test_what_is_told_apart_by_features_is_told_apart(make_model, make_source):
    model = make_model(num_classes=None)
    train, test = bright_and_dark(make_source, 20), bright_and_dark(make_source, 30)
    assert fewshot(model, train, test, shots=3) == 1.0
    swapped = make_source(images=test.images, labels=(1 - test.labels).tolist(), classes=test.classes)
    assert fewshot(model, train, swapped, shots=3) == 0.0


def test_too_few_examples_of_a_class_are_refused_and_the_class_named(make_model, make_source):
    train = make_source(5, labels=[0, 0, 1, 2, 2])
    with pytest.raises(DataError, match="class 'bee' has 1 examples, fewer than 2 shots"):
        fewshot(make_model(), train, train, shots=2)


def test_a_class_that_is_not_among_those_drawn_from_is_refused_and_named(make_model, make_source):
    with pytest.raises(DataError, match="has other classes than memory: 'dog'"):
        fewshot(make_model(), make_source(6), make_source(6, classes=("ant", "cat", "dog")), shots=1)


def test_classes_are_matched_by_name_whatever_their_order_and_some_may_be_untested(make_model, make_source):
    model = make_model(num_classes=None)
    train, test = bright_and_dark(make_source, 20), bright_and_dark(make_source, 30)
    turned = make_source(images=test.images, labels=(1 - test.labels).tolist(), classes=("light", "dark"))
    assert fewshot(model, train, turned, shots=3) == 1.0
    light = make_source(images=test.images[1::2], labels=[0] * 15, classes=("light",))
    assert fewshot(model, train, light, shots=3) == 1.0


def test_fewer_shots_are_among_more():
    labels = np.repeat(np.arange(3), 50)
    few, more = (choose(labels, shots, 0).reshape(3, -1) for shots in (5, 25))
    np.testing.assert_array_equal(few, more[:, :5])


@given(st.integers(2, 40), st.integers(1, 40), st.integers(2, 5))
def test_one_decomposition_gives_the_heads_of_every_l2(count, width, classes):
    rng = np.random.default_rng(count * 100 + width)
    features, labels = rng.normal(size=(count, width)), np.arange(count) % classes
    l2s = (1e-2, 1.0, 2.0**10)
    for l2, head in zip(l2s, sweep(features, labels, classes, l2s), strict=True):
        direct = solve(features, labels, classes, l2)
        scale = np.abs(direct.scores(features)).max()
        np.testing.assert_allclose(head.scores(features), direct.scores(features), atol=1e-7 * scale)


def test_the_sweep_is_that_of_the_authors():
    assert SWEEP[0] == 2**-10 and SWEEP[-1] == 2**19 and len(SWEEP) == 30


def test_a_class_that_none_of_the_examples_has_is_never_predicted():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 4)), np.arange(30) % 2
    assert set(solve(features, labels, 3).scores(features).argmax(axis=1)) <= {0, 1}


def test_the_same_l2_is_best_that_ranks_best_over_data_sets():
    # by the mean of accuracies the third would be best, by the mean rank the second is
    assert best_by_rank([[0.1, 0.3, 0.2], [0.1, 0.3, 0.2], [0.1, 0.2, 0.9]]) == 1
    assert best_by_rank([[0.5, 0.5, 0.4]]) == 0  # equal ones: the first


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_and_counted(bad):
    features = np.ones((5, 2), np.float32)
    features[3, 1] = bad
    for work in (solve, lambda *args: next(sweep(*args))):
        with pytest.raises(DataError, match="1 examples are not finite, the first is number 3"):
            work(features, np.arange(5) % 2, 2)


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_regulariser_is_refused(l2):
    with pytest.raises(SettingsError, match="give a number above zero"):
        solve(np.eye(3), np.arange(3), 3, l2)


def test_scoring_in_pieces_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(50, 6)), np.arange(50) % 3
    head = solve(features, labels, 3)
    whole = head.accuracy(features, labels)
    monkeypatch.setattr("vitlab.evals.fewshot._ROWS", 7)
    assert head.accuracy(features, labels) == whole
    np.testing.assert_allclose(solve(features, labels, 3).weights, head.weights, rtol=1e-12, atol=1e-12)
