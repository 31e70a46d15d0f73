import numpy as np
import pytest
import torch
from torch.nn import functional

from vitlab.data.labels import from_flat
from vitlab.errors import SettingsError
from vitlab.train.balance import Balanced, Equal, PerClass, describe, weigh
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Sigmoid, Softmax, Supervised, weights_for
from vitlab.train.state import TrainState
from vitlab.train.step import train_step

CLASSES = ("ant", "bee", "cat")


def test_balanced_weights_are_labels_over_classes_times_images():
    weights = weigh(Balanced(), CLASSES, np.array([60, 30, 10]))
    np.testing.assert_allclose(weights, [100 / 180, 100 / 90, 100 / 30])
    assert weights @ [60, 30, 10] == pytest.approx(100)  # the mean weight of an image is 1


def test_a_class_without_images_has_a_weight_and_changes_no_other():
    np.testing.assert_allclose(weigh(Balanced(), CLASSES, np.array([75, 0, 25])), [100 / 150, 1, 100 / 50])
    assert weigh(Balanced(), CLASSES, np.array([0, 0, 0])).tolist() == [1, 1, 1]


def test_weights_by_name_and_no_weights():
    assert weigh(PerClass(weights={"cat": 4}), CLASSES, np.array([1, 1, 1])).tolist() == [1, 1, 4]
    assert weigh(Equal(), CLASSES, np.array([1, 1, 1])) is None
    with pytest.raises(SettingsError, match="no class 'bea'; did you mean 'bee'"):
        weigh(PerClass(weights={"bea": 4}), CLASSES, np.array([1, 1, 1]))


def test_weights_are_said_in_a_line():
    assert describe({"ant": 0.5, "bee": 2.0}) == "ant 0.5, bee 2"
    assert describe({f"c{i}": float(i + 1) for i in range(20)}) == "20 classes, from 1 (c0) to 20 (c19)"


def test_softmax_weights_have_the_mean_one_over_the_images_and_sigmoid_takes_them_as_they_are():
    labels, kind = np.array([0] * 6 + [1] * 3 + [2]), PerClass(weights={"cat": 11})
    weights = weights_for(Softmax(class_weights=kind), CLASSES, labels)
    np.testing.assert_allclose(weights, np.array([1, 1, 11]) / 2)
    assert weights_for(Sigmoid(class_weights=kind), CLASSES, labels).tolist() == [1, 1, 11]
    assert weights_for(MaskedPatches(), CLASSES, labels) is None


def test_softmax_refuses_several_labels_and_names_the_way_out():
    labels = from_flat(np.array([0, 1]), np.array([2, 0]))
    with pytest.raises(SettingsError, match=r"--set train\.objective=Sigmoid"):
        weights_for(Softmax(), CLASSES, labels)
    np.testing.assert_allclose(weights_for(Sigmoid(class_weights=Balanced()), CLASSES, labels), [1, 1, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weighted_losses_are_those_by_hand(smoothing):
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 1]), torch.tensor([0.5, 2.0, 3.0])
    targets = functional.one_hot(labels, 3) * (1 - smoothing) + smoothing / 3
    expected = -(weights * targets * logits.log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(Softmax(label_smoothing=smoothing).losses(logits, labels, weights), expected)
    targets = torch.where(functional.one_hot(labels, 3) > 0, 1 - smoothing, smoothing)
    p = logits.sigmoid()
    expected = -(weights * targets * p.log() + (1 - targets) * (1 - p).log()).sum(dim=1)
    torch.testing.assert_close(Sigmoid(label_smoothing=smoothing).losses(logits, labels, weights), expected)


def test_the_mean_over_all_images_is_the_weighted_mean_of_torch():
    torch.manual_seed(0)
    logits, labels = torch.randn(100, 3), torch.arange(100) % 10 // 4
    objective = Softmax(class_weights=PerClass(weights={"cat": 5, "ant": 2}))
    weights = torch.tensor(weights_for(objective, CLASSES, labels.numpy()), dtype=torch.float32)
    expected = functional.cross_entropy(logits, labels, torch.tensor([2.0, 1.0, 5.0]))
    torch.testing.assert_close(objective.losses(logits, labels, weights).mean(), expected)


def test_a_task_weighs_its_losses(make_batch, make_state):
    model, batch, weights = make_state().model, make_batch(), np.array([0.5, 2.0, 3.0])
    plain, weighed = Supervised(Softmax()), Supervised(Softmax(), weights)
    losses = plain(model, batch.images, batch.labels) * torch.tensor(weights, dtype=torch.float32)[batch.labels]
    torch.testing.assert_close(weighed(model, batch.images, batch.labels), losses)
    assert list(weighed.parameters()) == []


@pytest.mark.parametrize("objective", [Softmax(class_weights=Balanced()), Sigmoid(class_weights=Balanced())])
@pytest.mark.parametrize("micro", [1, 4])
def test_weighted_micro_batches_make_the_same_update(make_state, make_training, make_batch, objective, micro):
    weights = np.array([0.2, 1.0, 7.0])
    whole, split = make_training(objective=objective), make_training(objective=objective, micro_batch_size=micro)
    one, other = (TrainState.start(make_state().model, settings, weights) for settings in (whole, split))
    for step in range(3):
        result, result2 = (
            train_step(one, make_batch(step).pieces(whole.pieces), whole).read(one),
            train_step(other, make_batch(step).pieces(split.pieces), split).read(other),
        )
        assert result2.loss == pytest.approx(result.loss, rel=1e-5)
    for (name, new), old in zip(other.named_parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-6, msg=name)
