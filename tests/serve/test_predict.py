import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitlab.errors import DataError, ImageError, WeightsError
from vitlab.serve.predict import Prediction, Predictor
from vitlab.weights.save import save

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def predictor(make_model):
    return Predictor(make_model(classes=CLASSES))


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (int(side), 11, 3), dtype=np.uint8) for side in rng.integers(5, 40, 19)]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_probabilities_are_those_of_the_model(predictor, images):
    spec = predictor.model.image_spec
    batch = torch.stack([torch.from_numpy(spec.prepare(image).copy()).permute(2, 0, 1) for image in images])
    with torch.inference_mode():
        expected = predictor.model(spec.normalise(batch)).softmax(dim=1).numpy()
    found = np.stack([prediction.probabilities for prediction in predictor.predict(images)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_an_answer_does_not_depend_on_the_images_beside_it(predictor, images):
    together = predictor.predict(images)
    backwards = predictor.predict(images[::-1])[::-1]
    for image, one, other in zip(images, together, backwards, strict=True):
        alone = predictor(image)
        assert np.array_equal(alone.probabilities, one.probabilities)
        assert np.array_equal(alone.probabilities, other.probabilities)


def test_a_path_bytes_and_pixels_of_one_image_give_one_answer(predictor, images, tmp_path):
    (tmp_path / "a.png").write_bytes(png(images[0]))
    answers = predictor.predict([images[0], png(images[0]), tmp_path / "a.png", str(tmp_path / "a.png")])
    assert all(np.array_equal(answers[0].probabilities, other.probabilities) for other in answers[1:])


def test_the_features_are_what_the_head_reads(predictor, images):
    features = np.stack([prediction.features for prediction in predictor.predict(images)])
    logits = predictor.model.head(torch.from_numpy(features))
    found = np.stack([prediction.probabilities for prediction in predictor.predict(images)])
    np.testing.assert_allclose(logits.softmax(dim=1).detach().numpy(), found, rtol=1e-5)


def test_any_number_of_prepared_images_is_answered_in_batches_of_one_size(make_model, images):
    predictor = Predictor(make_model(classes=CLASSES), batch_size=2)
    prepared = [predictor.prepare(image) for image in images[:5]]
    together = predictor.answer(prepared)
    assert len(together) == 5
    for image, answer in zip(prepared, together, strict=True):
        assert np.array_equal(predictor.answer([image])[0].probabilities, answer.probabilities)


def test_no_images_give_no_answers(predictor):
    assert predictor.predict([]) == []


def test_the_best_come_first_and_equals_keep_the_order_of_the_classes():
    prediction = Prediction(CLASSES, np.array([0.25, 0.5, 0.25], np.float32), np.zeros(4, np.float32))
    assert prediction.top(2) == [("bee", 0.5), ("ant", 0.25)]
    assert [name for name, _ in prediction.top(99)] == ["bee", "ant", "cat"]


def test_a_saved_model_gives_the_same_answers(predictor, images, tmp_path):
    save(predictor.model, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded = Predictor.load(path)
        assert loaded.classes == CLASSES
        assert np.array_equal(loaded(images[0]).probabilities, predictor(images[0]).probabilities)


def test_a_model_without_names_numbers_its_classes(make_model, images):
    assert {name for name, _ in Predictor(make_model())(images[0]).top()} == {"0", "1", "2"}


def test_a_model_without_a_head_is_refused(make_model):
    with pytest.raises(WeightsError, match="has no head; fine-tune it first"):
        Predictor(make_model(num_classes=None))


def test_what_is_no_image_is_named(predictor, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        predictor(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"b\.jpg: cannot be read \(No such file"):
        predictor(tmp_path / "b.jpg")


def test_a_model_of_several_labels_answers_for_each_class_by_itself(make_model, images, tmp_path):
    model = make_model(classes=CLASSES)
    model.probabilities = "sigmoid"
    save(model, tmp_path / "model.safetensors")
    spec = model.image_spec
    batch = torch.stack([torch.from_numpy(spec.prepare(image).copy()).permute(2, 0, 1) for image in images[:3]])
    with torch.inference_mode():
        expected = model(spec.normalise(batch)).sigmoid().numpy()
    found = Predictor.load(tmp_path / "model.safetensors").predict(images[:3])
    np.testing.assert_allclose(np.stack([answer.probabilities for answer in found]), expected, rtol=1e-5)
    assert found[0].top(3)[0][1] == found[0].probabilities.max()
