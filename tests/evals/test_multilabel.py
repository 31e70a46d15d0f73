import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vitlab.data.labels import from_flat
from vitlab.errors import DataError
from vitlab.evals.classify import Accuracy, Predictions, classify
from vitlab.evals.fewshot import fewshot
from vitlab.evals.multilabel import MultiLabelPredictions, average_precision

CLASSES = ("ant", "bee", "cat", "dog")


def labels_of(truth):
    return from_flat(np.nonzero(truth)[1], truth.sum(axis=1))


@st.composite
def answers(draw):
    """Probabilities in coarse steps, so that ties are common, and which classes each image has, at least one in all."""
    count, classes = draw(st.integers(1, 12)), draw(st.integers(1, len(CLASSES)))
    steps = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    probabilities = draw(arrays.arrays(np.float32, (count, classes), elements=steps))
    truth = draw(arrays.arrays(np.bool_, (count, classes)).filter(lambda array: array.any()))
    return probabilities, truth


def predictions(probabilities, truth):
    keys = tuple(f"image-{index}" for index in range(len(truth)))
    return MultiLabelPredictions(probabilities, labels_of(truth), keys, CLASSES[: truth.shape[1]])


def precision_by_hand(scores, truth):
    """Average precision by its definition: at every threshold precision times the recall it adds."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = [bool(own) for own, score in zip(truth, scores, strict=True) if score >= threshold]
        recall = sum(taken) / truth.sum()
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


@given(answers())
def test_average_precision_is_that_by_its_definition_also_with_ties(answer):
    result = predictions(*answer)
    probabilities, truth = answer
    expected = {
        name: precision_by_hand(probabilities[:, c], truth[:, c])
        for c, name in enumerate(result.classes)
        if truth[:, c].any()
    }
    assert result.per_class() == pytest.approx(expected)
    assert result.metrics()["map"] == pytest.approx(sum(expected.values()) / len(expected))


def test_average_precision_of_a_known_example():
    """The example in scikit-learn's documentation of average_precision_score."""
    assert average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == pytest.approx(
        5 / 6
    )


@given(answers(), st.randoms())
def test_the_order_of_the_images_changes_nothing(answer, random):
    probabilities, truth = answer
    order = list(range(len(truth)))
    random.shuffle(order)
    assert predictions(*answer).metrics() == pytest.approx(predictions(probabilities[order], truth[order]).metrics())


@given(answers(), st.integers(1, 5))
def test_a_best_class_counts_when_it_is_among_the_labels_and_images_without_labels_do_not(answer, k):
    result, hits, labelled = predictions(*answer), 0, 0
    for row, own in zip(*answer, strict=True):
        best = sorted(range(len(row)), key=lambda index: (-row[index], index))
        hits += any(own[c] for c in best[:k])
        labelled += own.any()
    assert result.top(k) == pytest.approx(hits / labelled)
    assert (result.metrics()["labelled"], result.metrics()["count"]) == (labelled, len(answer[0]))


@given(answers())
def test_precision_recall_and_loss_are_those_by_hand(answer):
    result = predictions(*answer)
    probabilities, truth = answer
    named = probabilities >= 0.5
    right = (named & truth).sum()
    assert result.precision() == pytest.approx(right / named.sum() if named.any() else 0)
    assert result.recall() == pytest.approx(right / truth.sum())
    inner = np.clip(probabilities, 0.01, 0.99)
    each = np.where(truth, -np.log(inner), -np.log(1 - inner.astype(np.float64)))
    np.testing.assert_allclose(predictions(inner, truth).losses, each.sum(axis=1), rtol=1e-5)
    assert np.isfinite(result.losses).all()


def test_numbers_for_people_and_for_programs():
    result = predictions(np.array([[0.9, 0.2], [0.8, 0.7]], np.float32), np.array([[True, False], [True, True]]))
    assert result.summary() == "mAP 100.0 % on 2 images, top-1 100.0 %, precision 100.0 % and recall 100.0 % at 50%"
    assert result.table()[0].startswith("mAP        100.00 %")
    assert result.as_json()["per_class"] == {"ant": 1.0, "bee": 1.0} and result.as_json()["threshold"] == 0.5


@pytest.fixture
def several(make_source):
    source = make_source(5)
    source.labels = from_flat(np.array([0, 2, 1, 0, 1, 2]), np.array([2, 1, 0, 0, 3]))
    return source


def test_a_model_of_several_labels_has_a_probability_for_each_class_by_itself(make_model, several):
    model = make_model(classes=("cat", "ant", "bee"))
    model.probabilities = "sigmoid"
    result = classify(model, several, batch_size=2)
    images = torch.stack([torch.from_numpy(image) for image in several.images]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model(model.image_spec.normalise(images)).sigmoid()
    np.testing.assert_allclose(result.probabilities, expected.numpy(), rtol=1e-5)
    assert isinstance(result, MultiLabelPredictions)
    assert result.labels.tolist() == [[1, 0, -1], [2, -1, -1], [-1, -1, -1], [-1, -1, -1], [1, 2, 0]]


def test_a_model_of_one_class_is_counted_by_several_right_answers(make_model, several):
    model = make_model(classes=("ant", "bee", "cat"))
    result = classify(model, several)
    assert isinstance(result, MultiLabelPredictions)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, rtol=1e-5)
    names = {"map", "top1", "top5", "precision", "recall", "loss", "labelled", "count"}
    assert set(Accuracy(several)(model)) == names
    hits = result.hits(1)[result.counted]
    assert result.calibration is not None and result.calibration.counts.sum() == len(hits) == 3
    assert result.table()[0].startswith("top-1") and result.as_json()["calibration"]["ece"] == result.calibration.ece


def test_a_model_of_several_labels_is_evaluated_on_images_of_one_class_too(make_model, make_source):
    model = make_model(classes=("ant", "bee", "cat"))
    assert isinstance(classify(model, make_source(4)), Predictions)
    model.probabilities = "sigmoid"
    result = classify(model, make_source(4))
    assert isinstance(result, MultiLabelPredictions)
    assert result.truth.tolist() == np.eye(3, dtype=bool)[[0, 1, 2, 0]].tolist()


def test_nothing_to_evaluate_on_is_refused(make_model, make_source):
    source = make_source(3)
    source.labels = np.full((3, 1), -1)
    with pytest.raises(DataError, match="no image with a label"):
        classify(make_model(), source)
    with pytest.raises(DataError, match="has no images"):
        classify(make_model(), make_source(0))


def test_fewshot_refuses_several_labels(make_model, several, make_source):
    for sides in ((several, make_source(5)), (make_source(5), several)):
        with pytest.raises(DataError, match="several labels an image"):
            fewshot(make_model(), *sides, shots=1)


def test_the_loss_is_right_where_the_model_is_nearly_certain(several, make_model):
    """In float32 the probability at a logit of 18 is 1, and the loss of the contrary would be without bound."""
    model = make_model(num_classes=len(several.classes), classes=several.classes)
    model.probabilities = "sigmoid"
    logits = torch.linspace(18, -20, len(several.classes))
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(logits)
    found = classify(model, several)
    assert isinstance(found, MultiLabelPredictions)
    wanted = torch.from_numpy(found.truth).double()
    exact = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.double().expand_as(wanted), wanted, reduction="none"
    ).sum(dim=1)
    np.testing.assert_allclose(found.losses, exact.numpy(), rtol=1e-6)


def test_two_classes_of_one_name_are_two_classes():
    """ImageNet has two: a crane is a bird, or lifts loads."""
    probabilities, truth = np.array([[0.9, 0.2], [0.8, 0.7]]), np.array([[True, True], [False, False]])
    keys = ("x", "y")
    found = MultiLabelPredictions(probabilities, labels_of(truth), keys, ("crane", "crane"))
    assert found.per_class() == {"crane": 1.0, "crane (2)": 0.5} and found.metrics()["map"] == 0.75
    single = Predictions(np.array([[0.6, 0.4], [0.7, 0.3]], np.float32), np.array([0, 1]), keys, ("crane", "crane"))
    assert single.per_class() == {"crane": 1.0, "crane (2)": 0.0}
