import numpy as np
import pytest
from PIL import Image

from vitlab.errors import BadImagesError
from vitlab.studies.evaluation import Reading, evaluate_model
from vitlab.studies.prediction import predict_files
from vitlab.weights.save import save


@pytest.fixture
def photos(tmp_path):
    """Two classes of an image each, stored on its side."""
    tags = Image.Exif()
    tags[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        image = np.zeros((20, 40, 3), np.uint8)
        image[:, :20] = 250 if name == "a" else 90
        Image.fromarray(image).save(tmp_path / "photos" / name / "0.png", exif=tags)
    return tmp_path / "photos"


@pytest.fixture
def model(tmp_path, make_model):
    save(make_model(num_classes=2, classes=("a", "b")), tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def test_published_decoding_is_used_and_said(model, photos):
    plain = evaluate_model(model, str(photos))
    published = evaluate_model(model, str(photos), Reading(decoding="pil-compat"))
    assert not np.array_equal(plain.predictions.probabilities, published.predictions.probabilities)
    assert (plain.as_json()["decoding"], published.as_json()["decoding"]) == ("standard", "pil-compat")
    assert published.lines()[0] == f"{photos}: 2 images, decoded as pil-compat"
    assert plain.lines()[0] == f"{photos}: 2 images"
    answers = [prediction for _, prediction in predict_files(model, [photos], Reading(decoding="pil-compat"))]
    for answer, probabilities in zip(answers, published.predictions.probabilities, strict=True):
        np.testing.assert_allclose(answer.probabilities, probabilities, atol=1e-6)


def test_the_limit_of_pixels_holds_everywhere(model, photos):
    tight = Reading(max_pixels=799)
    for work in (
        lambda: evaluate_model(model, str(photos), tight),
        lambda: list(predict_files(model, [photos], tight)),
    ):
        with pytest.raises(BadImagesError, match=r"(?s)2 of 2 images.*more than 799"):
            work()
    assert len(evaluate_model(model, str(photos), Reading(max_pixels=800)).predictions.labels) == 2
