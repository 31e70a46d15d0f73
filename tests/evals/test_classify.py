import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vitlab.data.layouts.examples import imagenet_synsets
from vitlab.errors import BadImagesError, DataError, NonFiniteError
from vitlab.evals.classify import Accuracy, Predictions, classify
from vitlab.evals.interval import wilson_interval
from vitlab.models.classifier import build

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@st.composite
def answers(draw):
    """Probabilities in coarse steps, so that ties are common, and labels."""
    count, classes = draw(st.integers(1, 12)), draw(st.integers(1, len(CLASSES)))
    weights = draw(arrays.arrays(np.float32, (count, classes), elements=st.sampled_from([1.0, 2.0, 3.0])))
    labels = draw(arrays.arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    return weights / weights.sum(axis=1, keepdims=True), labels


def predictions(probabilities, labels):
    keys = tuple(f"image-{index}" for index in range(len(labels)))
    return Predictions(probabilities, labels, keys, CLASSES[: probabilities.shape[1]])


@given(answers())
def test_the_confusion_matrix_counts_every_example_once(answer):
    result = predictions(*answer)
    matrix = result.confusion()
    expected = np.zeros((len(result.classes), len(result.classes)), int)
    for row, label in zip(result.probabilities, result.labels, strict=True):
        expected[label, max(range(len(row)), key=lambda k: row[k])] += 1
    np.testing.assert_array_equal(matrix, expected)


@given(answers())
def test_top_one_is_the_share_of_right_predictions_also_with_ties(answer):
    result = predictions(*answer)
    right = [int(row.argmax()) == label for row, label in zip(result.probabilities, result.labels, strict=True)]
    assert result.top(1) == pytest.approx(sum(right) / len(right))
    assert result.top(1) == pytest.approx(np.trace(result.confusion()) / len(right))


@given(answers(), st.integers(1, 9))
def test_top_k_is_the_share_of_examples_whose_class_is_among_the_first_k(answer, k):
    result, hits = predictions(*answer), 0
    for row, label in zip(result.probabilities, result.labels, strict=True):
        best = sorted(range(len(row)), key=lambda index: (-row[index], index))
        hits += label in best[:k]
    assert result.top(k) == pytest.approx(hits / len(result.labels))


@given(answers())
def test_per_class_and_loss_are_those_by_hand(answer):
    result = predictions(*answer)
    predicted = result.probabilities.argmax(axis=1)
    expected = {
        name: float((predicted[result.labels == index] == index).mean())
        for index, name in enumerate(result.classes)
        if (result.labels == index).any()
    }
    assert result.per_class() == pytest.approx(expected)
    own = [row[label] for row, label in zip(result.probabilities, result.labels, strict=True)]
    np.testing.assert_allclose(result.losses, -np.log(np.array(own, np.float64)))
    metrics = result.metrics()
    assert metrics["loss"] == pytest.approx(float(result.losses.mean()))
    assert (metrics["top1"], metrics["top5"], metrics["count"]) == (result.top(1), result.top(5), len(own))


def test_a_certain_mistake_has_a_finite_loss():
    result = Predictions(np.array([[1, 0]], np.float32), np.array([1]), ("image",), ("ant", "bee"))
    assert np.isfinite(result.losses).all()
    assert result.losses[0] > 80


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_the_literature(correct, total, low, high):
    assert wilson_interval(correct / total, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1 - correct / total, total) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_within_zero_and_one(total, share):
    low, high = wilson_interval(share, total)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_every_example_is_predicted_once_in_order(make_model, make_source):
    model, source = make_model(classes=("ant", "bee", "cat")), make_source(7)
    result = classify(model, source, batch_size=3)
    images = torch.stack([torch.from_numpy(image) for image in source.images]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = torch.softmax(model(model.image_spec.normalise(images)), dim=1)
    np.testing.assert_allclose(result.probabilities, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.labels, source.labels)
    assert result.keys == tuple(f"image-{index}" for index in range(7))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_size_of_the_batch_changes_nothing(make_model, make_source, batch_size):
    model, source = make_model(classes=("ant", "bee", "cat")), make_source(7)
    expected = classify(model, source, batch_size=3)
    result = classify(model, source, batch_size=batch_size)
    np.testing.assert_allclose(result.probabilities, expected.probabilities, rtol=1e-5, atol=1e-6)
    assert result.metrics()["count"] == 7


def test_an_example_has_the_same_numbers_wherever_it_stands(make_model, make_source):
    model, source = make_model(classes=("ant", "bee", "cat")), make_source(5)
    backwards = make_source(images=source.images[::-1], labels=source.labels[::-1].tolist())
    result = classify(model, source, batch_size=4).probabilities
    np.testing.assert_array_equal(classify(model, backwards, batch_size=4).probabilities[::-1], result)


def test_dropout_is_off(make_model, make_source):
    model = make_model(classes=("ant", "bee", "cat"), dropout=0.5).train()
    first, again = (classify(model, make_source(4)).probabilities for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_labels_are_mapped_by_class_name(make_model, make_source):
    model = make_model(classes=("cat", "dog", "ant"))
    result = classify(model, make_source(4, classes=("ant", "cat"), labels=[0, 1, 1, 0]))
    assert result.labels.tolist() == [2, 0, 0, 2]
    assert result.classes == ("cat", "dog", "ant")


def test_a_class_that_the_model_does_not_know_is_refused_and_named(make_model, make_source):
    with pytest.raises(DataError, match="'wolf'"):
        classify(make_model(classes=("ant", "bee", "cat")), make_source(4, classes=("ant", "wolf")))


def test_a_model_without_class_names_takes_those_of_the_source(make_model, make_source):
    assert classify(make_model(), make_source(4)).classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("classes", [None, 5])
def test_a_head_for_another_number_of_classes_is_refused(make_model, make_source, classes):
    with pytest.raises(DataError, match="3 classes"):
        classify(make_model(num_classes=classes), make_source(4))


def test_every_image_that_cannot_be_decoded_is_named(make_model, make_source):
    source = make_source(5)
    source.images[1] = source.images[4] = b"not an image"
    with pytest.raises(BadImagesError, match="2 of 5 images") as error:
        classify(make_model(), source, batch_size=2)
    assert [image.where for image in error.value.images] == ["image-1", "image-4"]


def test_a_fresh_model_is_no_better_than_always_naming_the_first_class(make_settings, make_source):
    """Its head is zero, so that every class is as probable as any other."""
    accuracy = Accuracy(make_source(9))
    assert accuracy(build(make_settings()))["top1"] == pytest.approx(1 / 3)


def test_the_evaluator_keeps_its_latest_predictions(make_model, make_source):
    accuracy = Accuracy(make_source(7), batch_size=4)
    assert accuracy.last is None
    values = accuracy(make_model())
    assert values == accuracy.last.metrics()
    assert set(values) == {"top1", "top5", "loss", "count"}


@pytest.mark.parametrize("named", ["", "words", "synsets"])
def test_folders_called_by_their_synsets_are_imagenets_classes(make_model, make_source, named):
    synsets = imagenet_synsets()
    names = {"": (), "words": tuple(synsets.values()), "synsets": tuple(synsets)}[named]
    some = ("n15075141", "n01440764", "n02105855")
    result = classify(make_model(num_classes=1000, classes=names), make_source(4, classes=some))
    assert result.labels.tolist() == [999, 0, 230, 999] and len(result.classes) == 1000


def test_a_model_of_synsets_is_evaluated_on_words(make_model, make_source):
    words = tuple(imagenet_synsets()[name] for name in ("n01440764", "n02105855"))
    model = make_model(num_classes=3, classes=("n15075141", "n01440764", "n02105855"))
    assert classify(model, make_source(2, classes=words)).labels.tolist() == [1, 2]


def test_classes_of_one_name_are_told_apart_by_their_place_or_not_at_all(make_model, make_source):
    model = make_model(classes=("crane", "bee", "crane"))
    assert classify(model, make_source(3, classes=("crane", "bee", "crane"))).labels.tolist() == [0, 1, 2]
    assert classify(model, make_source(1, classes=("bee",))).labels.tolist() == [1]
    for other in (("bee", "crane"), ("bee", "crane", "crane")):
        with pytest.raises(DataError, match="another order than the model, and 'crane' is the name of two"):
            classify(model, make_source(3, classes=other))


def test_outputs_that_are_no_numbers_are_refused_and_the_image_named(make_model, make_source):
    """Nothing is greater than what is no number: it would count as right."""
    model = make_model(classes=("ant", "bee", "cat"))
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    for kind in ("softmax", "sigmoid"):
        model.probabilities = kind
        with pytest.raises(NonFiniteError, match="not finite numbers for 4 of 4 images, the first 'image-0'"):
            classify(model, make_source(4))
