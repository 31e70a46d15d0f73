import numpy as np
import pytest

from vitlab.errors import DataError
from vitlab.evals import probe as module
from vitlab.evals.features import Labelled
from vitlab.evals.fewshot import BIAS
from vitlab.evals.probe import fit, probe


def clouds(count, seed, width=5, classes=3, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(size=(classes, width))
    values = 7 + 3 * (centres[labels] + noise * rng.normal(size=(count, width)))
    return Labelled(values.astype(np.float32), labels.astype(np.int64))


def gradient(train, head, classes, l2):
    """The derivative of the mean cross-entropy plus l2 / 2 |w|² by weights and bias, from its formula."""
    x = (train.values - head.mean) / head.std
    matrix, bias = head.weights[:-1], head.weights[-1] * BIAS
    scores = x @ matrix + bias
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    errors = shares - np.eye(classes)[train.labels]
    return np.vstack([x.T @ errors / len(x) + l2 * matrix, errors.mean(axis=0)])


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_the_head_is_where_the_gradient_is_zero(l2):
    """The objective is strictly convex in the weights: there is one such place."""
    train = clouds(120, 0)
    head = fit(train, 3, l2)
    assert np.abs(gradient(train, head, 3, l2)).max() < 1e-5
    assert np.abs(gradient(train, fit(train, 3, 10 * l2), 3, l2)).max() > 1e-5
    np.testing.assert_allclose(fit(train, 3, l2, start=fit(train, 3, 0.1)).weights, head.weights, atol=1e-3)


@pytest.mark.parametrize("l2", [1e-5, 1e-6])
def test_a_weak_regulariser_is_followed_to_its_end(l2):
    """Of images that are told apart without error the weights grow until it stops them: the likelihood alone is flat there."""
    train = clouds(60, 7, width=80, noise=2.0)
    head = fit(train, 3, l2)
    assert np.abs(gradient(train, head, 3, l2)).max() < 0.01 * l2 * np.abs(head.weights[:-1]).max()


def test_pieces_change_nothing(monkeypatch):
    train = clouds(50, 1)
    whole = fit(train, 3, 0.1).weights
    monkeypatch.setattr(module, "_ROWS", 7)
    np.testing.assert_allclose(fit(train, 3, 0.1).weights, whole, atol=1e-6)


def test_the_regulariser_is_what_is_best_on_images_held_out_and_the_answer_is_the_same_each_time():
    train, test = clouds(60, 2, width=40, noise=2.0), clouds(90, 3, width=40, noise=2.0)
    found = probe(train, test, 3)
    assert found.held_out[found.l2] == max(found.held_out.values())
    assert found == probe(train, test, 3)
    assert found.accuracy == fit(train, 3, found.l2).accuracy(test.values, test.labels) > 0.5


def test_of_equal_strengths_the_strongest_is_taken():
    train = clouds(60, 4, noise=0.01)
    assert probe(train, train, 3).l2 == module.STRENGTHS[0]


def test_one_image_a_class_leaves_nothing_to_choose_by():
    with pytest.raises(DataError, match="none can be held out"):
        probe(clouds(3, 5), clouds(6, 6), 3)
